"""The loss: by hand, against a NumPy oracle, and at its edges."""

import json

import numpy as np
import pytest
import tensorflow as tf

from ssd_tf.command.settings import choices
from ssd_tf.config.training import LossParams
from ssd_tf.multibox import losses

NAMES = ["cross_entropy_pos", "cross_entropy_neg", "localization"]
MININGS = [("image", "positives"), ("batch", "batch_size")]


def values(terms):
    assert list(terms) == NAMES
    assert all(t.dtype == tf.float32 and t.shape == () for t in terms.values())
    return np.array([float(term) for term in terms.values()])


def random_batch(seed=0, images=3, anchors=200, classes=5, positive=0.05):
    """Arguments of `ssd_losses`; some anchors are ignored."""
    random = np.random.RandomState(seed)
    shape = images, anchors
    kind = random.uniform(size=shape)
    scores = np.where(kind < positive, random.uniform(0.5, 1, shape), 0)
    scores = np.where(kind > 0.9, -1, scores)
    return {
        "logits": random.normal(0, 2, (*shape, classes)).astype("f"),
        "localisations": random.normal(size=(*shape, 4)).astype("f"),
        "gclasses": random.randint(1, classes, shape),
        "glocalisations": random.normal(size=(*shape, 4)).astype("f"),
        "gscores": scores.astype("f"),
    }


def log_softmax(logits):
    shifted = np.float64(logits) - logits.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))


def slow_losses(
    logits,
    localisations,
    gclasses,
    glocalisations,
    gscores,
    negative_ratio=3.0,
    alpha=1.0,
    label_smoothing=0.0,
    min_negatives=3,
):
    """`mining="image", normalizer="positives"`, an anchor at a time."""
    positive_sum = negative_sum = box_sum = count = 0
    classes = logits.shape[-1]
    for image in range(len(logits)):
        hard, positives = [], 0
        for anchor, score in enumerate(gscores[image]):
            log_p = log_softmax(logits[image, anchor])
            label = gclasses[image, anchor] if score >= 0.5 else 0
            target = np.eye(classes)[label] * (1 - label_smoothing)
            loss = -((target + label_smoothing / classes) * log_p).sum()
            if score >= 0.5:
                positives += 1
                positive_sum += loss
                offset = localisations[image, anchor]
                for x in np.abs(offset - glocalisations[image, anchor]):
                    box_sum += 0.5 * x * x if x < 1 else x - 0.5
            elif score > -0.5:
                hard.append(loss)
        wanted = max(int(negative_ratio * positives), min_negatives)
        negative_sum += sum(sorted(hard, reverse=True)[:wanted])
        count += positives
    sums = np.array([positive_sum, negative_sum, alpha * box_sum])
    return sums / max(count, 1)


def test_smooth_l1_and_its_gradient():
    x = tf.constant([-2, -1, -0.5, 0, 0.5, 1, 2], tf.float32)
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = losses.abs_smooth(x)
    np.testing.assert_array_equal(y, [1.5, 0.5, 0.125, 0, 0.125, 0.5, 1.5])
    np.testing.assert_array_equal(
        tape.gradient(y, x), [-1, -1, -0.5, 0, 0.5, 1, 1]
    )


def test_cross_entropy_by_hand():
    logits = np.log([[0.7, 0.2, 0.1], [0.25, 0.25, 0.5]]).astype("f")
    loss = losses.cross_entropy(logits, [0, 2])
    np.testing.assert_allclose(loss, -np.log([0.7, 0.5]), rtol=1e-6)


def test_label_smoothing_by_hand():
    logits = np.log([[0.7, 0.2, 0.1]]).astype("f")
    loss = losses.cross_entropy(logits, [0], label_smoothing=0.3)
    # .7 + .3 / 3 on the label, .1 on the others.
    expected = -np.dot([0.8, 0.1, 0.1], np.log([0.7, 0.2, 0.1]))
    np.testing.assert_allclose(loss, [expected], rtol=1e-6)


def test_four_anchors_by_hand():
    # One positive, one ignored, two negatives of which one is wanted.
    half = np.log([0.5, 0.25, 0.25])
    logits = [[half, [9, 0, 0], np.log([0.8, 0.1, 0.1]), half]]
    moves = [[0.5, 2, 0, -1], [9] * 4, [9] * 4, [9] * 4]
    terms = losses.ssd_losses(
        np.array(logits, "f"),
        np.array([moves], "f"),
        np.array([[2, 1, 1, 1]]),
        np.zeros([1, 4, 4], "f"),
        np.array([[0.5, -1, 0.49, 0]], "f"),
        negative_ratio=1,
        min_negatives=0,
        alpha=2,
    )
    expected = [np.log(4), np.log(2), 2 * (0.125 + 1.5 + 0 + 0.5)]
    np.testing.assert_allclose(values(terms), expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("options", "positives"), [({}, 2), ({"match_threshold": 0.7}, 1)]
)
def test_match_threshold_is_reached_at_equality(options, positives):
    scores = np.array([[0.7, 0.5, 0.4]], "f")
    terms = losses.ssd_losses(
        np.zeros([1, 3, 2], "f"),
        np.ones([1, 3, 4], "f"),
        np.ones([1, 3], int),
        np.zeros([1, 3, 4], "f"),
        scores,
        normalizer="batch_size",
        **options,
    )
    # Four times half of 1 squared, log 2 an anchor.
    np.testing.assert_allclose(
        values(terms),
        [positives * np.log(2), (3 - positives) * np.log(2), 2 * positives],
        rtol=1e-6,
    )


@pytest.mark.parametrize(
    ("counts", "chosen"),
    [
        ([2, 1], [[0, 1, 0, 1, 0], [1, 0, 0, 0, 0]]),
        # Of the equal 3s of the first image the first; ties by index.
        ([1, 3], [[0, 1, 0, 0, 0], [1, 1, 1, 0, 0]]),
        ([0, 0], [[0] * 5, [0] * 5]),
        ([9, 9], [[1, 1, 0, 1, 1], [1, 1, 1, 1, 0]]),
    ],
)
def test_mining_takes_exactly_as_many_as_told(counts, chosen):
    difficulty = np.array([[1, 3, 9, 3, 0], [2, 2, 2, 2, 7]], "f")
    candidates = difficulty < 5
    mined = losses.mine_per_image(difficulty, candidates, counts)
    np.testing.assert_array_equal(mined, np.array(chosen, bool))


def test_mining_without_candidates():
    none = np.zeros([2, 4], bool)
    mined = losses.mine_per_image(np.ones([2, 4], "f"), none, [3, 0])
    assert not np.any(mined)


@pytest.mark.parametrize("seed", range(3))
def test_mining_counts_with_ties(seed):
    random = np.random.RandomState(seed)
    difficulty = random.randint(0, 4, (6, 50)).astype("f")
    candidates = random.uniform(size=(6, 50)) < 0.5
    counts = random.randint(0, 40, 6)
    mined = losses.mine_per_image(difficulty, candidates, counts).numpy()
    for row in range(6):
        order = np.argsort(-difficulty[row], kind="stable")
        order = order[candidates[row][order]][: counts[row]]
        np.testing.assert_array_equal(np.flatnonzero(mined[row]), sorted(order))


def test_ports_mining_leaves_out_the_last_and_its_ties():
    background = np.array([[0.1, 0.2, 0.2, 0.3], [0.4, 0.0, 0.9, 0.2]], "f")
    candidates = background > 0
    # The third smallest is .2: only what lies below it.
    mined = losses.mine_over_batch(background, candidates, 3)
    np.testing.assert_array_equal(mined, background == np.float32(0.1))


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"negative_ratio": 1.5, "alpha": 0.25, "min_negatives": 0},
        {"label_smoothing": 0.1, "min_negatives": 40},
    ],
)
def test_against_a_slow_oracle(seed, options, compile_as):
    batch = random_batch(seed)
    batch["gscores"][1] = np.minimum(batch["gscores"][1], 0)  # no positives
    terms = compile_as(lambda b: losses.ssd_losses(**b, **options))(batch)
    # Sums of some hundred float32 values.
    np.testing.assert_allclose(
        values(terms), slow_losses(**batch, **options), rtol=2e-6
    )


def test_label_smoothing_changes_the_ports_loss_too():
    batch = random_batch()
    options = {"mining": "batch", "normalizer": "batch_size"}
    plain = values(losses.ssd_losses(**batch, **options))
    smooth = values(losses.ssd_losses(**batch, **options, label_smoothing=0.1))
    assert (smooth[:2] != plain[:2]).all() and smooth[2] == plain[2]


@pytest.mark.parametrize("min_negatives", [0, 1, 3])
def test_background_images_teach_by_min_negatives(min_negatives):
    batch = random_batch(positive=0)
    terms = losses.ssd_losses(**batch, min_negatives=min_negatives)
    expected = slow_losses(**batch, min_negatives=min_negatives)
    np.testing.assert_allclose(values(terms), expected, rtol=2e-6)
    assert (float(terms["cross_entropy_neg"]) > 0) == (min_negatives > 0)


def test_ignored_anchors_get_no_gradient():
    batch = random_batch()
    batch["gscores"][:, ::2] = -1
    logits = tf.constant(batch.pop("logits"))
    with tf.GradientTape() as tape:
        tape.watch(logits)
        terms = losses.ssd_losses(logits, **batch, negative_ratio=1e6)
        total = tf.add_n(list(terms.values()))
    touched = np.any(tape.gradient(total, logits), axis=-1)
    np.testing.assert_array_equal(touched, batch["gscores"] > -0.5)


def edge_case(name):
    batch = random_batch(images=1 if name == "batch of one" else 3)
    if name in ("no positives", "no positives, all ties"):
        batch["gscores"] = np.minimum(batch["gscores"], 0)
    if name == "no boxes":
        batch["gscores"] *= 0
        batch["gclasses"] *= 0
    if name == "all positives":
        batch["gscores"] = np.ones_like(batch["gscores"])
    if name == "all ignored":
        batch["gscores"] = -np.ones_like(batch["gscores"])
    if "all ties" in name:
        batch["logits"] *= 0
    if name == "huge logits":
        batch["logits"] *= 1e4
    return batch


@pytest.mark.parametrize(("mining", "normalizer"), MININGS)
@pytest.mark.parametrize(
    "case",
    [
        "no boxes",
        "no positives",
        "no positives, all ties",
        "all positives",
        "all ignored",
        "all ties",
        "huge logits",
        "batch of one",
    ],
)
def test_loss_and_gradients_are_finite(case, mining, normalizer, compile_as):
    batch = edge_case(case)
    watched = ("logits", "localisations")

    @compile_as
    def terms_and_gradients(batch):
        with tf.GradientTape() as tape:
            tape.watch([batch[name] for name in watched])
            terms = losses.ssd_losses(
                **batch, mining=mining, normalizer=normalizer
            )
            total = tf.add_n(list(terms.values()))
        return terms, tape.gradient(total, [batch[name] for name in watched])

    terms, gradients = terms_and_gradients(
        {name: tf.constant(value) for name, value in batch.items()}
    )
    assert np.isfinite(values(terms)).all()
    assert all(np.isfinite(part).all() for part in gradients)
    has_positives = (batch["gscores"] >= 0.5).any()
    assert (float(terms["localization"]) > 0) == has_positives
    if mining == "image":
        np.testing.assert_allclose(
            values(terms), slow_losses(**batch), rtol=1e-5
        )


@pytest.mark.parametrize(("mining", "normalizer"), MININGS)
def test_lists_of_layers_equal_one_anchor_axis(mining, normalizer):
    batch = random_batch(anchors=2 * 3 * 4 + 1 * 2 * 6)

    def layers(value):
        first, second = value[:, :24], value[:, 24:]
        item = value.shape[2:]
        return [
            first.reshape(3, 2, 3, 4, *item),
            second.reshape(3, 1, 2, 6, *item),
        ]

    options = {"mining": mining, "normalizer": normalizer}
    lists = {name: layers(value) for name, value in batch.items()}
    np.testing.assert_array_equal(
        values(losses.ssd_losses(**lists, **options)),
        values(losses.ssd_losses(**batch, **options)),
    )


def test_half_precision_outputs_give_a_float32_loss():
    batch = random_batch()
    for name in ("logits", "localisations"):
        batch[name] = tf.cast(batch[name], tf.bfloat16)
    exact = {**batch, **{k: tf.cast(batch[k], tf.float32) for k in batch}}
    exact["gclasses"] = batch["gclasses"]
    np.testing.assert_array_equal(
        values(losses.ssd_losses(**batch)), values(losses.ssd_losses(**exact))
    )


@pytest.mark.parametrize("name", ["mining", "normalizer"])
def test_unknown_choice_is_named(name):
    with pytest.raises(ValueError, match=f"{name} must be one of.*'hard'"):
        losses.ssd_losses(**random_batch(), **{name: "hard"})


TWO_REPLICAS = """
import json, sys
import numpy as np, tensorflow as tf
from ssd_tf.multibox import losses
from ssd_tf.command.settings import choices
from ssd_tf.config.training import LossParams

cpu = tf.config.list_physical_devices("CPU")[0]
two = [tf.config.LogicalDeviceConfiguration()] * 2
tf.config.set_logical_device_configuration(cpu, two)
strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
with np.load(sys.argv[1]) as arrays:
    batch = dict(arrays)

def replica_batch(context):
    half = context.replica_id_in_sync_group
    return {k: tf.constant(np.split(v, 2)[half]) for k, v in batch.items()}

def gradients_and_terms(batch, normalizer):
    logits = batch["logits"]
    with tf.GradientTape() as tape:
        tape.watch(logits)
        terms = losses.ssd_losses(**batch, normalizer=normalizer)
        total = tf.add_n(list(terms.values()))
    return tape.gradient(total, logits), terms

distribute = strategy.experimental_distribute_values_from_function
for normalizer in choices(LossParams, "normalizer"):
    halves = distribute(replica_batch)

    @tf.function
    def run(halves):
        return strategy.run(gradients_and_terms, (halves, normalizer))

    gradient, terms = run(halves)
    gradient = np.concatenate(strategy.experimental_local_results(gradient))
    terms = [strategy.reduce("SUM", x, axis=None) for x in terms.values()]
    terms = [float(term) for term in terms]
    print(json.dumps([normalizer, terms, float(np.abs(gradient).sum())]))
"""


def test_two_replicas_sum_to_one_device(run_script, tmp_path):
    batch = random_batch(images=4)
    batch["gscores"][2:] = np.minimum(batch["gscores"][2:], 0)  # lopsided
    np.savez(tmp_path / "batch.npz", **batch)
    lines = run_script(TWO_REPLICAS, tmp_path / "batch.npz").splitlines()
    logits = tf.constant(batch.pop("logits"))
    for line in lines:
        normalizer, terms, gradient_sum = json.loads(line)
        with tf.GradientTape() as tape:
            tape.watch(logits)
            expected = losses.ssd_losses(logits, **batch, normalizer=normalizer)
            total = tf.add_n(list(expected.values()))
        gradient = tape.gradient(total, logits)
        np.testing.assert_allclose(terms, values(expected), rtol=1e-6)
        expected_sum = np.abs(gradient).sum()
        np.testing.assert_allclose(gradient_sum, expected_sum, rtol=1e-5)
    assert len(lines) == len(choices(LossParams, "normalizer"))

"""The compiled step: terms, clipping, accumulation, precision, replicas."""

import dataclasses
import functools
import types

import numpy as np
import pytest
import step_process
import tensorflow as tf
from processes import SUPPORT, finish, start
from step_process import RECIPE, batch, make_step
from tensorflow.python.eager import context

from ssd_tf.command import UserError
from ssd_tf.config.training import LossParams
from ssd_tf.multibox import losses
from ssd_tf.training import step as train_step

ONE = tf.distribute.get_strategy()
TERMS = ["cross_entropy_pos", "cross_entropy_neg", "localization"]
TERMS += ["regularization", "loss", "gradient_norm"]


def recipe(**changes):
    return dataclasses.replace(RECIPE, **changes)


@functools.cache
def baseline(**changes):
    """The terms of a step with these settings, and the weights after it."""
    terms, _, _, after = one_step(recipe(**changes))
    return terms, after


def one_step(training, values=None, batch_norm=False):
    """Terms, net, and the trainable weights before and after a step."""
    step, net, *_ = make_step(training, ONE, batch_norm)
    before = weights(net)
    terms = step(values or batch())
    return {k: float(v) for k, v in terms.items()}, net, before, weights(net)


def weights(net):
    return {x.path: x.numpy() for x in net.model.trainable_variables}


def flat(values):
    return np.concatenate([value.ravel() for value in values.values()])


def by_hand(net, values):
    """Terms and gradients in plain calls, with the recipe's weight decay."""
    encode = train_step.make_encode(net, 0.5)
    targets = encode({k: v for k, v in values.items() if k != "image"})
    with tf.GradientTape() as tape:
        outputs = net.model(values["image"], training=True)
        terms = losses.ssd_losses(
            outputs["logits"], outputs["localisations"], *targets
        )
        terms["regularization"] = sum(
            5e-4 / 2 * tf.reduce_sum(x**2)
            for x in net.model.trainable_variables
            if x.path.endswith("kernel")
        )
        terms["loss"] = sum(terms.values())
    variables = net.model.trainable_variables
    gradients = tape.gradient(terms["loss"], variables)
    return terms, {
        x.path: g.numpy() for x, g in zip(variables, gradients, strict=True)
    }


def test_terms_and_update_by_hand():
    values = batch()
    _, net, *_ = make_step(recipe(), ONE)
    expected, gradients = by_hand(net, values)
    norm = np.linalg.norm(flat(gradients))
    terms, _, before, after = one_step(recipe(optimizer="sgd"), values)
    assert sorted(terms) == sorted(TERMS)
    assert terms.pop("gradient_norm") == pytest.approx(norm, rel=1e-5)
    for name, term in terms.items():
        assert term == pytest.approx(float(expected[name]), rel=1e-6), name
    for name, gradient in gradients.items():
        rate = 0.1 if name.endswith("bias") else 0.05
        # The rate and two roundings of weights around 0.3.
        np.testing.assert_allclose(
            after[name], before[name] - rate * gradient, atol=1e-6
        )


@pytest.mark.parametrize("precision", ["float32", "mixed_float16"])
def test_clipped_update_by_hand(precision):
    options = {
        "optimizer": "sgd",
        "bias_learning_rate_multiplier": 1.0,
        "precision": precision,
    }
    free, _, start, far = one_step(recipe(**options))
    clipped = recipe(clip_gradient_norm=0.5, **options)
    terms, _, before, after = one_step(clipped)
    # What is told is the norm before.
    assert terms["gradient_norm"] == free["gradient_norm"] > 4
    step = flat(far) - flat(start)
    np.testing.assert_allclose(
        flat(after) - flat(before),
        step * 0.5 / free["gradient_norm"],
        atol=1e-7,  # roundings of weights up to 0.5
    )
    moved = np.linalg.norm(flat(after) - flat(before))
    assert moved == pytest.approx(0.05 * 0.5, rel=1e-4)


def test_a_small_gradient_is_not_clipped():
    _, plain = baseline()
    _, _, _, same = one_step(recipe(clip_gradient_norm=1e6))
    # TensorFlow multiplies by 1e6 * (1 / 1e6).
    np.testing.assert_allclose(flat(same), flat(plain), rtol=1e-6)


@pytest.mark.parametrize(
    ("parts", "normalizer"),
    [(2, "positives"), (4, "batch_size"), (8, "positives")],
)
def test_parts_add_up_to_the_batch(parts, normalizer):
    """With 8 parts the last of them is an image without boxes."""
    loss = LossParams(normalizer=normalizer)
    whole, expected = baseline(loss=loss)
    terms, _, _, after = one_step(
        recipe(loss=loss, gradient_accumulation_steps=parts)
    )
    assert terms == pytest.approx(whole, rel=1e-6)
    np.testing.assert_allclose(flat(after), flat(expected), atol=1e-6)


def test_parts_of_a_batch_without_boxes():
    values = batch()
    values["labels"] = np.zeros_like(values["labels"])
    whole, _, _, expected = one_step(recipe(), values)
    terms, _, _, after = one_step(recipe(gradient_accumulation_steps=4), values)
    assert whole["cross_entropy_pos"] == whole["localization"] == 0
    assert whole["cross_entropy_neg"] > 0
    assert terms == pytest.approx(whole, rel=1e-6)
    np.testing.assert_allclose(flat(after), flat(expected), atol=1e-6)


def test_batch_norm_sees_the_parts():
    values = batch()
    training = recipe(gradient_accumulation_steps=2)
    _, net, *_ = make_step(training, ONE, batch_norm=True)
    means = [
        np.mean(net.model.get_layer("conv")(half), axis=(0, 1, 2))
        for half in np.split(values["image"], 2)
    ]
    _, net, *_ = one_step(training, values, batch_norm=True)
    # Twice Keras's momentum of 0.99, from 0.
    np.testing.assert_allclose(
        net.model.get_layer("norm").moving_mean,
        0.99 * 0.01 * means[0] + 0.01 * means[1],
        atol=1e-8,
    )


def refused(replicas=1, **changes):
    strategy = types.SimpleNamespace(num_replicas_in_sync=replicas)
    with pytest.raises(UserError) as error:
        train_step.make_train_step(None, None, recipe(**changes), strategy)
    return str(error.value)


def test_settings_that_exclude_each_other_are_refused():
    assert refused(
        gradient_accumulation_steps=2, loss=LossParams(mining="batch")
    ).startswith("--gradient_accumulation_steps=2: --mining=batch")
    assert refused(2, jit_compile="on").startswith("--jit_compile=on: a step")


def test_adamw_has_no_weight_decay_in_the_loss():
    terms, _, before, after = one_step(recipe(optimizer="adamw"))
    assert terms["regularization"] == 0
    rate, decay = 0.05, 5e-4
    no_decay = one_step(recipe(optimizer="adam", weight_decay=0.0))[3]
    for name, weight in before.items():
        off = rate * decay * weight if name.endswith("kernel") else 0.0
        np.testing.assert_allclose(after[name], no_decay[name] - off, atol=1e-7)


def test_the_average_moves_at_the_end_of_a_step():
    step, net, _, average = make_step(recipe(), ONE, batch_norm=True)
    before = [weight.numpy() for weight in net.model.weights]
    step(batch())
    assert int(average.updates) == 1
    for shadow, old, weight in zip(
        average.shadows.values(), before, net.model.weights, strict=True
    ):
        # The first decay is 1/10.
        np.testing.assert_allclose(
            shadow, 0.1 * old + 0.9 * weight.numpy(), atol=1e-7
        )


@pytest.mark.parametrize("precision", ["mixed_float16", "mixed_bfloat16"])
def test_low_precision_learns_with_a_loss_in_float32(precision):
    training = recipe(precision=precision)
    step, net, optimizer, _ = make_step(training, ONE)
    assert net.model.get_layer("conv").compute_dtype == precision[6:]
    outputs = net.model(batch()["image"])
    for layer in tf.nest.flatten(outputs):
        assert layer.dtype == tf.float32
    terms = [step(batch()) for _ in range(20)]
    assert {x.dtype for each in terms for x in each.values()} == {tf.float32}
    expected, _ = baseline()
    for name, term in expected.items():
        # Eight bits of bfloat16, averaged over some hundred anchors.
        assert float(terms[0][name]) == pytest.approx(term, rel=1e-2), name
    assert float(terms[-1]["loss"]) < 0.5 * float(terms[0]["loss"])
    assert ("loss_scale" in terms[0]) == (precision == "mixed_float16")


def test_a_step_that_overflows_is_left_out():
    training = recipe(precision="mixed_float16", clip_gradient_norm=1.0)
    step, net, optimizer, _ = make_step(training, ONE)
    optimizer.dynamic_scale.assign(2.0**100)
    before = weights(net)
    terms = step(batch())
    assert float(terms["loss_scale"]) == 2.0**100
    assert not np.isfinite(float(terms["gradient_norm"]))
    assert np.isfinite(float(terms["loss"]))
    np.testing.assert_array_equal(flat(weights(net)), flat(before))
    assert float(optimizer.dynamic_scale) == 2.0**99
    assert int(optimizer.iterations) == 0
    # The next that fits goes on.
    optimizer.dynamic_scale.assign(2.0**10)
    terms = step(batch())
    assert np.isfinite(float(terms["gradient_norm"]))
    assert not np.array_equal(flat(weights(net)), flat(before))
    assert int(optimizer.iterations) == 1


@pytest.mark.slow
def test_xla_computes_the_same_step():
    options = {
        "optimizer": "adamw",
        # Else the sign of a gradient of rounding alone is Adam's step.
        "opt_epsilon": 1e-2,
        "clip_gradient_norm": 1.0,
        "gradient_accumulation_steps": 2,
    }
    terms, _, _, expected = one_step(recipe(jit_compile="off", **options))
    compiled, _, _, after = one_step(recipe(jit_compile="on", **options))
    assert compiled == pytest.approx(terms, rel=1e-5)
    np.testing.assert_allclose(flat(after), flat(expected), atol=1e-6)


def test_cpus_are_not_compiled_for_by_default(monkeypatch):
    assert not train_step.is_compiled(recipe(jit_compile="auto"), 1)
    monkeypatch.setattr(
        tf.config, "list_logical_devices", lambda kind: [f"{kind}:0"]
    )
    assert train_step.is_compiled(recipe(jit_compile="auto"), 1)
    assert not train_step.is_compiled(recipe(jit_compile="auto"), 2)
    assert not train_step.is_compiled(recipe(jit_compile="off"), 1)


def sizes_of_sums(step):
    """How many tensors the sums of an optimized step have."""
    run = context.context()
    run.enable_run_metadata()
    try:
        step(batch())
        functions = run.export_run_metadata().function_graphs
    finally:
        run.disable_run_metadata()
    graphs = [graph for each in functions for graph in each.partition_graphs]
    nodes = [node for graph in graphs for node in graph.node]
    return {node.attr["N"].i for node in nodes if node.op == "AddN"}


def test_no_sum_is_in_the_order_of_free_memory():
    training = recipe(gradient_accumulation_steps=4)
    before = tf.config.optimizer.get_experimental_options()
    # Otherwise TensorFlow makes sums of more out of those of two.
    step, *_ = make_step(training, ONE, batch_norm=True)
    assert max(sizes_of_sums(step)) > 2
    step, *_ = make_step(training, ONE, batch_norm=True)
    with train_step.sums_in_order():
        assert sizes_of_sums(step) == {2}
    after = tf.config.optimizer.get_experimental_options()
    name = "arithmetic_optimization"
    assert after.pop(name)
    assert after == {k: v for k, v in before.items() if k != name}


def results(tmp_path, runs, *settings):
    """What processes of `step_process` write: by name of the run."""
    script = SUPPORT / "step_process.py"
    paths = {name: tmp_path / f"{name}.npz" for name in runs}
    processes = [
        start(script, mode, paths[name], *settings)
        for name, mode in runs.items()
    ]
    for process in processes:
        finish(process)
    return {name: dict(np.load(path)) for name, path in paths.items()}


@pytest.mark.slow
def test_steps_repeat_bit_for_bit_and_replicas_do_not_change_them(tmp_path):
    runs = {"one": "one", "again": "one", "mirrored": "mirrored"}
    of = results(tmp_path, runs, "clip_gradient_norm=0.5", "warmup_steps=10")
    assert len(of["one"]) == step_process.STEPS * len(TERMS) + 1 + 2 * 9
    assert of["one"]["0/gradient_norm"] > 5
    for name, value in of["one"].items():
        np.testing.assert_array_equal(of["again"][name], value, name)
        # Sums in another order.
        np.testing.assert_allclose(
            of["mirrored"][name], value, rtol=1e-5, atol=1e-7, err_msg=name
        )
    assert of["one"]["rate"] == pytest.approx(0.05 * 4 / 10)


@pytest.mark.slow
def test_replicas_in_float16_overflow_together(tmp_path):
    runs = {"one": "one", "mirrored": "mirrored"}
    scale = 2.0**100
    of = results(
        tmp_path,
        runs,
        "precision=mixed_float16",
        "clip_gradient_norm=0.5",
        f"loss_scale={scale}",
    )
    for values in of.values():
        scales = [values[f"{step}/loss_scale"] for step in range(3)]
        assert scales == [scale, scale / 2, scale / 4]
        # No step fits.
        assert values["rate"] == pytest.approx(0.05)
    for name, value in of["one"].items():
        if not name.endswith(("gradient_norm", "loss_scale")):
            np.testing.assert_allclose(
                of["mirrored"][name], value, rtol=1e-5, atol=1e-7, err_msg=name
            )
    of = results(tmp_path, runs, "precision=mixed_float16")
    for name, value in of["one"].items():
        # Ten bits, and roundings that differ with the size of a batch.
        np.testing.assert_allclose(
            of["mirrored"][name], value, rtol=5e-3, atol=1e-4, err_msg=name
        )

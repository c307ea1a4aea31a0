"""The port's own numbers, see golden/README.md: same inputs, same outputs."""

import json
import pathlib
import types

import inputs
import numpy as np
import pytest
import tensorflow as tf

from ssd_tf.multibox import detection, encoder, losses
from ssd_tf.multibox.anchor_axis import flatten_layers
from ssd_tf.nets import nets_factory

GOLDEN = pathlib.Path(__file__).parents[1] / "golden"
SCENES = {
    "a": (1, "mixed"),
    "b": (7, "mixed"),
    "c": (40, "mixed"),
    "d": (12, "tiny"),
    "e": (5, "huge"),
}
LOSS_BOXES = {"L1": (3, 9, 1), "L2": (25, 2, 6)}
LOSS_NAMES = ("cross_entropy_pos", "cross_entropy_neg", "localization")


@pytest.fixture(scope="module", params=["ssd_300_vgg", "ssd_512_vgg"])
def port(request, golden):
    """One net with the golden weights, its outputs and the golden values."""
    name = request.param
    net = nets_factory.get_network(name)()
    for variable_name, variable in net.variables_by_port_name().items():
        variable.assign(inputs.weight(variable_name, variable.shape))
    images = inputs.image_batch(f"dev/{name}", 1, net.params.img_shape[0])
    names = ("predictions", "localisations", "logits", "end_points")
    return types.SimpleNamespace(
        name=name,
        net=net,
        outputs=dict(zip(names, net.net(images), strict=True)),
        values=lambda key: golden[f"{name}/{key}"],
        keys=[key for key in golden if key.startswith(f"{name}/")],
    )


def predictions(port, tag, batch, **options):
    """Golden logits and localisations, lists of tensors."""
    shapes = [(*y.shape[:2], len(h)) for y, _, h, _ in port.net.anchors()]
    layers = inputs.predictions(
        f"dev/{port.name}{tag}", batch, shapes, 21, **options
    )
    return tuple([tf.constant(layer) for layer in part] for part in layers)


def test_anchors_are_equal_to_the_last_bit(port):
    for index, layer in enumerate(port.net.anchors()):
        for kind, values in zip("yxhw", layer, strict=True):
            expected = port.values(f"anchors/{index}/{kind}")
            assert values.dtype == expected.dtype == np.float32
            np.testing.assert_array_equal(values, expected)


@pytest.mark.parametrize("scene", SCENES)
def test_encode(port, compile_as, scene):
    number, kind = SCENES[scene]
    labels, boxes = inputs.scene(f"dev/{scene}", number, kind=kind)

    @compile_as
    def encode(labels, boxes):
        anchors = port.net.flat_anchors
        return encoder.encode(labels, boxes, anchors, 21, force_match=False)

    targets = encode(labels, boxes)
    for name, values in targets._asdict().items():
        expected = port.values(f"encode/{scene}/{name}")
        if name == "gclasses":
            np.testing.assert_array_equal(values, expected)
        else:
            # An offset is (cx - x_a) / w_a / .1: centres in [0, 1] are good
            # to 1e-7, and 10 / .028, the narrowest anchor, makes that 4e-5
            # where they nearly cancel.
            atol = 4e-5 if name == "glocalisations" else 1e-7
            np.testing.assert_allclose(
                values, expected, rtol=1e-5, atol=atol, err_msg=name
            )


@pytest.mark.parametrize("case", LOSS_BOXES)
def test_losses_and_their_gradients(port, case):
    anchors = port.net.flat_anchors
    targets = [
        encoder.encode(
            *inputs.scene(f"dev/{case}/{image}", number),
            anchors,
            21,
            force_match=False,
        )
        for image, number in enumerate(LOSS_BOXES[case])
    ]
    targets = [tf.stack(parts) for parts in zip(*targets, strict=True)]

    @tf.function
    def terms_and_gradients(logits, localisations):
        with tf.GradientTape() as tape:
            tape.watch([logits, localisations])
            terms = losses.ssd_losses(
                logits,
                localisations,
                *targets,
                mining="batch",
                normalizer="batch_size",
            )
            total = tf.add_n(list(terms.values()))
        return terms, tape.gradient(total, logits + localisations)

    terms, gradients = terms_and_gradients(*predictions(port, case, 3))
    # float32 sums of some hundred terms.
    np.testing.assert_allclose(
        [terms[name] for name in LOSS_NAMES],
        port.values(f"loss/{case}/values"),
        rtol=1e-5,
    )
    norms = [np.linalg.norm(np.float64(part)) for part in gradients]
    expected = port.values(f"loss/{case}/grad_norms")
    np.testing.assert_allclose(norms, expected, rtol=1e-4)
    touched = [np.any(part, axis=-1).sum() for part in gradients]
    expected = port.values(f"loss/{case}/grad_nonzero")
    np.testing.assert_array_equal(touched, expected)


def test_variables_have_the_names_and_shapes_of_the_checkpoints(port):
    text = (GOLDEN / f"{port.name}_variables.json").read_text()
    expected = {name: tuple(shape) for name, shape in json.loads(text)}
    variables = port.net.variables_by_port_name()
    assert {k: tuple(v.shape) for k, v in variables.items()} == expected


@pytest.mark.parametrize("kind", ["predictions", "localisations", "logits"])
def test_outputs_of_the_net(port, kind):
    for index, layer in enumerate(port.outputs[kind]):
        key = f"net/{kind}/{index}"
        assert layer.shape == tuple(port.values(f"{key}/shape"))
        expected = port.values(f"{key}/val")
        # 20 convolutions in another order of additions; a value that nearly
        # cancels is as exact as the largest ones that went into it. A
        # probability moves up to half as far as its logit, and logits of up to
        # 880 differ by 2e-6 of that between one CPU and another.
        relative = 1e-3 if kind == "predictions" else 1e-5
        np.testing.assert_allclose(
            np.ravel(layer)[port.values(f"{key}/idx")],
            expected,
            atol=relative * np.abs(expected).max(),
            rtol=0,
            err_msg=key,
        )


def test_end_points_of_the_net(port):
    end_points = port.outputs["end_points"]
    for name, layer in end_points.items():
        key = f"net/end_points/{name}"
        assert layer.shape == tuple(port.values(f"{key}/shape"))
        layer = np.float64(layer)
        stats = [layer.mean(), layer.std(), layer.min(), layer.max()]
        expected = port.values(f"{key}/stats")
        np.testing.assert_allclose(stats, expected, rtol=1e-5, err_msg=key)
    checked = [key for key in port.keys if "/end_points/" in key]
    assert len(checked) == 2 * len(end_points)  # the port has no other


def test_decode(port):
    _, localisations = predictions(port, "det", 2, scale=2.5)
    boxes = port.net.bboxes_decode(localisations, port.net.anchors())
    flat = np.ravel(flatten_layers(boxes, 1))
    # Corners are differences of values up to 1; hence the 1e-6 of it.
    np.testing.assert_allclose(
        flat[port.values("decode/idx")],
        port.values("decode/val"),
        rtol=1e-5,
        atol=1e-6,
    )


def detected(port):
    """Scores [2, 20, 50] and boxes [2, 20, 50, 4], as the golden ones."""
    logits, localisations = predictions(port, "det", 2, scale=2.5)
    # The port's 512 net does not hand on clipping_bbox (defect B38).
    window = [0, 0, 1, 1] if port.name == "ssd_300_vgg" else None
    by_class = port.net.detected_bboxes(
        [tf.nn.softmax(layer) for layer in logits],
        port.net.bboxes_decode(localisations, port.net.anchors()),
        select_threshold=0.3,
        nms_threshold=0.45,
        clipping_bbox=window,
        top_k=400,
        keep_top_k=50,
    )
    assert all(list(part) == list(range(1, 21)) for part in by_class)
    return tuple(np.stack(list(part.values()), 1) for part in by_class)


def test_detections_by_class(port):
    scores, boxes = detected(port)
    expected_scores = port.values("detect/scores")
    expected_boxes = port.values("detect/bboxes")
    # Softmax of 21 float32 logits.
    np.testing.assert_allclose(scores, expected_scores, atol=1e-6, rtol=0)
    # Two detections of the 512 net score the same to 1e-6 and may swap.
    tied = expected_scores[..., None] - expected_scores[..., None, :]
    distance = boxes[..., :, None, :] - expected_boxes[..., None, :, :]
    same = (np.abs(tied) < 1e-6) & (np.abs(distance).max(axis=-1) < 1e-6)
    assert same.any(axis=-1).all() and same.any(axis=-2).all()
    assert (expected_scores > 0).sum() > 100


def test_one_limit_for_the_image_keeps_the_best_of_the_classes(port):
    # `detect` has no counterpart in the port, but it must choose among the
    # same detections: 50 a class there, the best 40 of all here.
    logits, localisations = predictions(port, "det", 2, scale=2.5)
    found = detection.detect(
        logits,
        localisations,
        port.net.flat_anchors,
        select_threshold=0.3,
        nms_threshold=0.45,
        keep_top_k=40,
    )
    scores = port.values("detect/scores").reshape(2, -1)
    np.testing.assert_allclose(
        found.detection_scores, -np.sort(-scores)[:, :40], atol=1e-6, rtol=0
    )

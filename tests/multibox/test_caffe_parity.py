"""An SSD300 of Caffe's format, run by OpenCV and imported: the same net."""

import dataclasses

import caffe_model
import caffe_prototxt
import numpy as np
import pytest

from ssd_tf.config.evaluation import DetectionParams
from ssd_tf.config.presets import SSD_300_VGG_VOC
from ssd_tf.nets.ssd import SSDNet
from ssd_tf.weights import base, caffe

SOURCES = caffe_model.SOURCES["ssd_300_vgg_voc"]
SCORE = 0.5


def softmax(logits):
    """Probabilities of logits `[A, C]`."""
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """OpenCV's and our outputs of one random SSD300 for one image."""
    cv2 = pytest.importorskip("cv2")
    folder = tmp_path_factory.mktemp("caffe")
    blobs = caffe_model.random_blobs(SOURCES, 21, seed=0)
    model, prototxt = folder / "ssd.caffemodel", folder / "deploy.prototxt"
    caffe_model.write(model, caffe_model.ssd(SOURCES, blobs))
    prototxt.write_text(caffe_prototxt.deploy(SOURCES, 21, SCORE))

    random = np.random.default_rng(1)
    patches = random.integers(0, 256, (20, 20, 3), np.uint8)
    bgr = patches.repeat(15, axis=0).repeat(15, axis=1)
    theirs = cv2.dnn.readNetFromCaffe(str(prototxt), str(model))
    theirs.setInput(cv2.dnn.blobFromImage(bgr, 1.0, None, (104, 117, 123)))
    outputs = theirs.forward(["mbox_loc", "mbox_conf", "detection_out"])

    tensors = caffe.read(model)
    imported = caffe.convert(tensors, SSD_300_VGG_VOC)
    imported = dataclasses.replace(imported, unused=tensors.unused)
    net = SSDNet(imported.params)
    report = base.assign(net, imported)
    rgb = bgr[None, :, :, ::-1].astype(np.float32)
    mean = np.array(net.params.image_mean, np.float32)
    return report, outputs, net, rgb - mean


def test_all_of_an_ssd300_is_taken(both):
    report, _, net, _ = both
    assert report.fits()
    assert len(report.matched) == 71
    assert report.unused == ()
    assert net.params.num_classes == 21
    assert net.params.anchor_steps == tuple(
        (step, step) for step in (8, 16, 32, 64, 100, 300)
    )


@pytest.mark.parametrize(
    "kind, index, values", [("localisations", 0, 4), ("logits", 1, 21)]
)
def test_head_outputs_are_those_of_opencv(both, kind, index, values):
    _, outputs, net, images = both
    ours = net.model(images, training=False)[kind]
    ours = [np.reshape(layer, (-1, values)) for layer in ours]
    theirs = outputs[index].reshape(-1, values)
    assert len(theirs) == 8732
    ends = np.cumsum([len(layer) for layer in ours])
    for mine, expected in zip(ours, np.split(theirs, ends)[:-1], strict=True):
        largest = np.abs(expected).max()
        assert largest > 1
        # Up to 23 float32 convolutions in a row, each summed in another
        # order: 1e-5 of a layer's largest value was measured.
        np.testing.assert_allclose(mine, expected, rtol=0, atol=5e-5 * largest)


def test_detections_are_those_of_opencv_one_to_one(both):
    _, (_, logits, theirs), net, images = both
    ours = net.detect(images, DetectionParams(select_threshold=SCORE))
    number = int(ours.num_detections[0])
    # Rows of image, class, score, xmin, ymin, xmax, ymax; zeros fill up.
    theirs = theirs.reshape(-1, 7)
    theirs = theirs[theirs[:, 2] > 0]
    assert number == len(theirs)
    # Neither limit, 200 detections and 400 candidates a class, decides.
    assert 50 < number < 200
    assert len(set(theirs[:, 1])) > 10
    # Suppression has had work to do.
    scores = softmax(logits.reshape(-1, 21))[:, 1:]
    assert (scores > SCORE).sum() > 1.5 * number

    classes = ours.detection_classes[0, :number].numpy()
    scores = ours.detection_scores[0, :number].numpy()
    boxes = ours.detection_boxes[0, :number].numpy()
    # OpenCV does not cut boxes to the image.
    expected = np.clip(theirs[:, [4, 3, 6, 5]], 0, 1)
    distance = np.abs(boxes[:, None] - expected).max(axis=-1)
    # Logits reach 18, so they are good to 9e-4, and softmax makes at most a
    # quarter of that; offsets reach 19, and a tenth of an anchor's side, at
    # most .88, is a box's share of that. Measured: 2.3e-5 and 4.9e-6.
    same = (
        (classes[:, None] == theirs[:, 1])
        & (np.abs(scores[:, None] - theirs[:, 2]) < 2e-4)
        & (distance < 1e-4)
    )
    assert (same.sum(axis=0) == 1).all() and (same.sum(axis=1) == 1).all()

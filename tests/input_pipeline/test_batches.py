"""Records to batches: formats, pixels under boxes, padding, order, workers."""

import dataclasses
import io

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from ssd_tf.command import UserError
from ssd_tf.config.presets import SSD_128_MOBILENET_V2, SSD_300_VGG
from ssd_tf.config.training import AUGMENTATIONS
from ssd_tf.input_pipeline import batches as input_pipeline
from ssd_tf.input_pipeline import preprocessing

RED, BLUE = (200, 40, 40), (40, 40, 200)
PARAMS = SSD_128_MOBILENET_V2


def encoded(image, format="PNG", **options):
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def painted(box, format="PNG", shape=(200, 300), **options):
    """A red box, relative, on blue."""
    height, width = shape
    image = Image.new("RGB", (width, height), BLUE)
    ymin, xmin, ymax, xmax = np.round(np.array(box) * [*shape, *shape]).astype(
        int
    )
    image.paste(RED, (xmin, ymin, xmax, ymax))
    return encoded(image, format, **options)


def record(image, boxes=(), number=0, **flags):
    """A parsed record, as `datasets.records.read` makes it."""
    count = len(boxes)
    return {
        "image": image,
        "boxes": np.array(boxes, np.float32).reshape(count, 4),
        "labels": np.arange(1, count + 1, dtype=np.int64),
        "difficult": np.array(flags.get("difficult", [False] * count), bool),
        "crowd": np.array(flags.get("crowd", [False] * count), bool),
        "source_id": f"image {number}",
    }


def dataset(records):
    signature = {
        "image": tf.TensorSpec([], tf.string),
        "boxes": tf.TensorSpec([None, 4], tf.float32),
        "labels": tf.TensorSpec([None], tf.int64),
        "difficult": tf.TensorSpec([None], tf.bool),
        "crowd": tf.TensorSpec([None], tf.bool),
        "source_id": tf.TensorSpec([], tf.string),
    }
    return tf.data.Dataset.from_generator(
        lambda: iter(records), output_signature=signature
    )


@pytest.fixture(scope="module")
def records():
    """Ten small images with 0 to 4 boxes."""
    random = np.random.RandomState(0)
    made = []
    for number in range(10):
        low = random.uniform(0, 0.4, (number % 5, 2))
        boxes = np.hstack([low, low + random.uniform(0.3, 0.6, low.shape)])
        pixels = random.randint(0, 256, (40, 50, 3)).astype(np.uint8)
        image = encoded(Image.fromarray(pixels))
        made.append(record(image, boxes, number))
    return made


def train_batches(source, number, batch_size=4, params=PARAMS, **options):
    num_samples = sum(1 for _ in source)
    batches = input_pipeline.make_for_train(
        lambda seed: source, num_samples, params, batch_size, **options
    )
    return list(batches.take(number).as_numpy_iterator())


def colours(image, params=PARAMS):
    """Back to 0..255."""
    return image / params.image_scale + np.array(params.image_mean)


@pytest.mark.parametrize(
    ("mode", "format", "options"),
    [
        ("RGB", "JPEG", {}),
        ("L", "JPEG", {}),
        ("CMYK", "JPEG", {}),
        ("RGB", "JPEG", {"progressive": True}),
        ("RGB", "PNG", {}),
        ("RGBA", "PNG", {}),
        ("L", "PNG", {}),
        ("LA", "PNG", {}),
        ("P", "PNG", {}),
        ("P", "GIF", {}),
        ("RGB", "BMP", {}),
        ("L", "BMP", {}),
    ],
)
def test_every_format_is_read_as_rgb(mode, format, options):
    image = Image.new("RGB", (40, 30), (204, 102, 51)).convert(mode)
    expected = image.convert("RGB").getpixel((9, 9))
    data = encoded(image, format, **options)
    decoded = preprocessing.decode(data)
    assert decoded.shape == (30, 40, 3) and decoded.dtype == tf.uint8
    # One step of JPEG's colour rounding.
    np.testing.assert_allclose(
        np.int32(decoded), np.full([30, 40, 3], expected), atol=2
    )
    (batch,) = train_batches(dataset([record(data)] * 4), 1)
    assert batch["image"].shape == (4, 128, 128, 3)


def test_first_frame_of_an_animation():
    frames = [Image.new("RGB", (20, 10), colour) for colour in (RED, BLUE)]
    data = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    decoded = preprocessing.decode(data)
    np.testing.assert_array_equal(decoded, np.full([10, 20, 3], RED))


def test_whitening_by_hand():
    image = tf.constant([[[123, 117, 104], [255, 0, 0]]], tf.uint8)
    vgg = preprocessing.whiten(image, SSD_300_VGG)
    np.testing.assert_array_equal(vgg, [[[0, 0, 0], [132, -117, -104]]])
    mobilenet = preprocessing.whiten(image, PARAMS)
    np.testing.assert_allclose(mobilenet[0, 1], [1, -1, -1])


def test_the_package_hands_on_the_functions_of_the_port():
    from ssd_tf import input_pipeline as package

    assert package.make_for_train is input_pipeline.make_for_train
    assert package.make_for_eval is input_pipeline.make_for_eval


def test_image_for_the_net():
    prepare = input_pipeline.prepare_for(SSD_300_VGG)
    image = prepare({"image": painted([0, 0, 1, 0.5])})["image"]
    assert image.shape == (300, 300, 3) and image.dtype == tf.float32
    pixels = colours(image, SSD_300_VGG)
    np.testing.assert_allclose(pixels[:, :148], np.full([300, 148, 3], RED))
    np.testing.assert_allclose(pixels[:, 152:], np.full([300, 148, 3], BLUE))


@pytest.mark.parametrize(
    ("format", "options"), [("PNG", {}), ("JPEG", {"quality": 95})]
)
@pytest.mark.parametrize("augmentation", AUGMENTATIONS)
def test_pixels_stay_under_their_box(format, options, augmentation):
    box = [0.3, 0.2, 0.7, 0.5]
    source = dataset([record(painted(box, format, **options), [box])] * 4)
    kept, flipped = 0, 0
    batches = train_batches(
        source, 10, augmentation=AUGMENTATIONS[augmentation]
    )
    for batch in batches:
        for image, boxes, labels in zip(
            batch["image"], batch["boxes"], batch["labels"], strict=True
        ):
            if not labels[0]:
                continue
            kept += 1
            ymin, xmin, ymax, xmax = boxes[0] * 128
            flipped += xmin + xmax > 128
            pixels = colours(image)
            is_red = pixels[..., 0] > pixels[..., 2]
            y, x = np.mgrid[0:128, 0:128] + 0.5
            # Two source pixels of JPEG blocks and of bilinear blur, enlarged.
            margin = 6
            inside = (y > ymin + margin) & (y < ymax - margin)
            inside &= (x > xmin + margin) & (x < xmax - margin)
            outside = (y < ymin - margin) | (y > ymax + margin)
            outside |= (x < xmin - margin) | (x > xmax + margin)
            assert is_red[inside].all() and not is_red[outside].any()
    if augmentation == "none":
        assert kept == 40 and not flipped
    else:
        assert kept > 25 and 5 < flipped < kept - 5


def test_boxes_follow_to_the_pixel():
    # The red box's own bounds, measured in the picture, are the box: a crop
    # takes whole pixels, each of them 8 and more in the result.
    box = [0.25, 0.25, 0.75, 0.75]
    source = dataset([record(painted(box, shape=(16, 16)), [box])] * 4)
    measured = 0
    # Other hues would turn what is red.
    augmentation = dataclasses.replace(AUGMENTATIONS["ssd"], hue_prob=0.0)
    for batch in train_batches(source, 6, augmentation=augmentation):
        for image, boxes in zip(batch["image"], batch["boxes"], strict=True):
            pixels = colours(image)
            rows, columns = np.nonzero(pixels[..., 0] > pixels[..., 2])
            if not boxes.any():
                continue
            found = [
                rows.min(),
                columns.min(),
                rows.max() + 1,
                columns.max() + 1,
            ]
            np.testing.assert_allclose(np.array(found), boxes[0] * 128, atol=1)
            measured += 1
    assert measured > 10


def test_batch_has_the_documented_shapes_and_types(records):
    (batch,) = train_batches(dataset(records), 1)
    assert {key: (x.shape, x.dtype) for key, x in batch.items()} == {
        "image": ((4, 128, 128, 3), np.float32),
        "boxes": ((4, 8, 4), np.float32),
        "labels": ((4, 8), np.int64),
        "ignored": ((4, 8), bool),
        "source_id": ((4,), object),
    }


@pytest.mark.parametrize(
    ("number", "padded"),
    [
        *((0, 8), (1, 8), (8, 8), (9, 16), (16, 16), (17, 24), (24, 24)),
        *((25, 32), (33, 48), (40, 48), (49, 64), (65, 96), (1000, 1024)),
    ],
)
def test_boxes_are_padded_to_few_counts(number, padded):
    batch = {
        "labels": tf.ones([2, number], tf.int64),
        "ignored": tf.ones([2, number], tf.bool),
        "boxes": tf.ones([2, number, 4]),
        "other": tf.constant(3),
    }
    result = input_pipeline.pad_boxes(batch)
    assert result["boxes"].shape == (2, padded, 4)
    for key in ("labels", "ignored", "boxes"):
        np.testing.assert_array_equal(result[key][:, :number], batch[key])
        assert not np.any(result[key][:, number:])
    assert result["other"] == 3


@pytest.mark.parametrize(
    ("ignore_difficult", "ignored"),
    [(False, [False, False, True]), (True, [True, False, True])],
)
def test_crowds_and_difficult_boxes(ignore_difficult, ignored):
    boxes = [[0.1, 0.1, 0.4, 0.4], [0.5, 0.5, 0.8, 0.8], [0, 0, 1, 1]]
    flags = {"difficult": [True, False, False], "crowd": [False, False, True]}
    source = dataset([record(painted(boxes[0]), boxes, **flags)] * 2)
    (batch,) = train_batches(
        source,
        1,
        batch_size=2,
        augmentation=AUGMENTATIONS["none"],
        ignore_difficult=ignore_difficult,
    )
    np.testing.assert_array_equal(batch["ignored"][0], ignored + [False] * 5)
    np.testing.assert_array_equal(batch["labels"][0], [1, 2, 3] + [0] * 5)


@pytest.mark.parametrize("format", ["PNG", "JPEG"])
def test_images_of_background_only(format):
    source = dataset([record(painted([0, 0, 0, 0], format))] * 4)
    augmentation = dataclasses.replace(AUGMENTATIONS["ssd"], expand_prob=0.0)
    for batch in train_batches(source, 3, augmentation=augmentation):
        assert not batch["labels"].any() and not batch["boxes"].any()
        # Never cropped: blue everywhere.
        pixels = colours(batch["image"])
        assert (pixels[..., 2] > pixels[..., 0]).all()


@pytest.mark.parametrize("first_step", [1, 3, 5, 8])
def test_a_run_that_goes_on_sees_what_it_would_have_seen(records, first_step):
    # Ten images in batches of four: steps within, at and over epochs' ends.
    source = dataset(records)
    whole = train_batches(source, 10)
    rest = train_batches(source, 10 - first_step, first_step=first_step)
    assert_same(rest, whole[first_step:])


def test_records_of_a_step_are_those_it_was_trained_on(records):
    source = dataset(records)
    for step, batch in enumerate(train_batches(source, 6, seed=5), 1):
        found = input_pipeline.records_of_step(
            lambda seed: source, 10, batch_size=4, seed=5, step=step
        )
        ids = [record["source_id"] for record in found]
        assert ids == batch["source_id"].tolist()


def test_the_number_of_images_must_be_true(records):
    batches = input_pipeline.make_for_train(
        lambda seed: dataset(records), 11, PARAMS, 4
    )
    with pytest.raises(tf.errors.FailedPreconditionError, match="only 10"):
        list(batches.take(3))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"boxes": np.array([[0, 0, np.nan, 1]])}, "a box is non-finite"),
        ({"boxes": np.array([[0, 0, np.inf, 1]])}, "a box is non-finite"),
        ({"labels": np.array([0])}, "a label has no class"),
        ({"labels": np.array([21])}, "a label has no class"),
        ({"image": b"no image"}, "Unknown image file format"),
    ],
)
def test_a_bad_record_stops_and_is_named(records, change, reason):
    bad = record(records[0]["image"], [[0, 0, 1, 1]], 77) | change
    made = [*records[:5], bad]
    source = dataset(made)
    with pytest.raises(tf.errors.InvalidArgumentError):
        train_batches(source, 2, batch_size=3)
    with pytest.raises(UserError) as told:
        with input_pipeline.explained_errors(
            lambda: input_pipeline.records_of_step(
                lambda seed: source, 6, 6, 0, 1
            ),
            PARAMS.num_classes,
            "bad data",
        ):
            train_batches(source, 2, batch_size=3)
    message = str(told.value)
    assert message.startswith("bad data: image image 77: ")
    assert reason in message and "{{" not in message and "[Op" not in message


def test_bad_data_whose_records_are_good_say_what_tensorflow_says(records):
    error = tf.errors.FailedPreconditionError(None, None, "{{node x}} too few")
    with pytest.raises(UserError, match="^bad data: too few; mend"):
        with input_pipeline.explained_errors(
            lambda: [], PARAMS.num_classes, "bad data"
        ):
            raise error


def test_an_epoch_sees_every_image_once(records):
    batches = train_batches(dataset(records), 10, batch_size=5)
    epochs = np.array([batch["source_id"] for batch in batches]).reshape(5, 10)
    for epoch in epochs:
        assert len(set(epoch)) == 10
    assert len({tuple(epoch) for epoch in epochs}) > 1  # in another order


def assert_same(batches, others):
    for ours, theirs in zip(batches, others, strict=True):
        for key in ours:
            np.testing.assert_array_equal(ours[key], theirs[key], err_msg=key)


@pytest.mark.parametrize("threads", [1, 7])
def test_the_seed_decides_whatever_the_threads(records, threads):
    options = tf.data.Options()
    options.threading.private_threadpool_size = threads
    source = dataset(records)
    ours = train_batches(source.with_options(options), 6, seed=3)
    assert_same(ours, train_batches(source, 6, seed=3))


def test_another_seed_makes_other_batches(records):
    ours, theirs = (
        train_batches(dataset(records), 3, seed=seed) for seed in (3, 4)
    )
    assert any(
        (a["source_id"] != b["source_id"]).any()
        for a, b in zip(ours, theirs, strict=True)
    )


def test_augmentation_changes_from_epoch_to_epoch(records):
    source = dataset(records[1:2])
    batches = train_batches(source, 6, batch_size=1)
    assert len({batch["image"].tobytes() for batch in batches}) > 4


def test_two_workers_decode_the_batch_of_one(records):
    source = dataset(records)
    whole = train_batches(source, 5)
    parts = [
        train_batches(
            source,
            5,
            context=tf.distribute.InputContext(
                num_input_pipelines=2,
                input_pipeline_id=worker,
                num_replicas_in_sync=2,
            ),
        )
        for worker in range(2)
    ]
    joined = [
        {key: np.concatenate([a[key], b[key]]) for key in a}
        for a, b in zip(*parts, strict=True)
    ]
    assert_same(joined, whole)


def test_replicas_of_one_worker_share_the_batch(records):
    context = tf.distribute.InputContext(num_replicas_in_sync=2)
    halves = train_batches(dataset(records), 4, context=context)
    assert {len(half["image"]) for half in halves} == {2}
    joined = [
        np.concatenate([a["source_id"], b["source_id"]])
        for a, b in zip(halves[::2], halves[1::2], strict=True)
    ]
    whole = [x["source_id"] for x in train_batches(dataset(records), 2)]
    np.testing.assert_array_equal(joined, whole)


def test_evaluation_sees_each_image_once_and_in_order(records):
    batches = list(
        input_pipeline.make_for_eval(
            dataset(records), input_pipeline.prepare_for(PARAMS), 4
        )
    )
    assert [len(batch["image"]) for batch in batches] == [4, 4, 2]
    ids = np.concatenate([batch["source_id"] for batch in batches])
    assert [one.decode() for one in ids] == [x["source_id"] for x in records]
    for batch, first in zip(batches, (0, 4, 8), strict=True):
        for row, expected in enumerate(records[first : first + 4]):
            number = len(expected["labels"])
            for key in ("boxes", "labels", "difficult", "crowd"):
                np.testing.assert_array_equal(
                    batch[key][row, :number], expected[key]
                )
                assert not np.any(batch[key][row, number:])
        assert (batch["height"] == 40).numpy().all()
        assert (batch["width"] == 50).numpy().all()


def test_evaluation_prepares_images_as_the_exported_model_does(records):
    (batch,) = input_pipeline.make_for_eval(
        dataset(records[:3]), input_pipeline.prepare_for(SSD_300_VGG), 3
    )
    for image, source in zip(batch["image"], records, strict=False):
        pixels = preprocessing.decode(source["image"])
        resized = preprocessing.resize(pixels, (300, 300))
        expected = preprocessing.whiten(resized, SSD_300_VGG)
        np.testing.assert_allclose(image, expected, atol=1e-4)

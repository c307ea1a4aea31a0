"""Checkpoints of the port: files of TensorFlow 1, names and values of golden.

The files are written by TensorFlow 1's own Saver.
"""

import dataclasses
import json
import pathlib
import shutil

import inputs
import numpy as np
import pytest
import tensorflow as tf

from ssd_tf.command import UserError
from ssd_tf.config.presets import PRESETS
from ssd_tf.nets import nets_factory
from ssd_tf.weights import base, port, tf_checkpoint

v1 = tf.compat.v1
GOLDEN = pathlib.Path(__file__).parents[1] / "golden"
NETS = ("ssd_300_vgg", "ssd_512_vgg")
VERSIONS = {
    "V1": v1.train.SaverDef.V1,
    "V2": v1.train.SaverDef.V2,
}


def variables(net):
    """Names and shapes of a net's checkpoint."""
    return json.loads((GOLDEN / f"{net}_variables.json").read_text())


def small(net, classes=21):
    """As many arrays under the same names; only the heads' last axis is real.

    `convert` looks at no other.
    """
    arrays = {}
    for index, (name, shape) in enumerate(variables(net)):
        outputs = shape[-1] // 21 * classes if "conv_cls" in name else 2
        shape = [1] * (len(shape) - 1) + [outputs]
        arrays[name] = np.full(shape, index, np.float32)
    return arrays


def save(prefix, arrays, version="V2"):
    """Writes a checkpoint as a TensorFlow 1 program does."""
    with tf.Graph().as_default(), v1.Session() as session:
        feeds = {}
        for name, array in arrays.items():
            variable = v1.get_variable(name, array.shape, array.dtype)
            feeds[variable.initializer.inputs[1]] = array
        session.run(v1.global_variables_initializer(), feeds)
        saver = v1.train.Saver(write_version=VERSIONS[version])
        return saver.save(session, str(prefix))


@pytest.fixture(scope="module", params=NETS)
def saved(request, tmp_path_factory):
    """A net's name and its two checkpoints, with the golden weights."""
    folder = tmp_path_factory.mktemp("port")
    arrays = {
        name: inputs.weight(name, shape)
        for name, shape in variables(request.param)
    }
    arrays["global_step"] = np.array(120000, np.int64)
    yield (
        request.param,
        {
            version: save(folder / version, arrays, version)
            for version in "V1 V2".split()
        },
    )
    shutil.rmtree(folder)  # 0.2 GB


@pytest.fixture(scope="module")
def imported(saved):
    """The net's name, the net with a file's weights, and the report."""
    name, paths = saved
    tensors = port.read(paths["V1" if name == "ssd_300_vgg" else "V2"])
    result = port.convert(tensors, PRESETS[name])
    net = nets_factory.get_network(name)(result.params)
    result = dataclasses.replace(result, unused=tensors.unused)
    return name, net, base.assign(net, result)


def test_both_formats_hold_every_array_to_the_last_bit(saved):
    name, paths = saved
    assert pathlib.Path(paths["V1"]).is_file()  # one file, no index
    assert pathlib.Path(f"{paths['V2']}.index").is_file()
    for path in paths.values():
        arrays = port.read(path).arrays
        assert arrays.pop("global_step") == 120000
        assert len(arrays) == {"ssd_300_vgg": 71, "ssd_512_vgg": 79}[name]
        for variable, shape in variables(name):
            np.testing.assert_array_equal(
                arrays[variable], inputs.weight(variable, shape)
            )


def test_everything_finds_its_place(imported):
    name, net, report = imported
    assert report.fits()
    assert len(report.matched) == len(variables(name))
    assert report.missing == report.fresh == report.mismatched == ()
    assert report.unused == ()
    assert net.params.num_classes == 21
    assert net.params.image_mean == (123.0, 117.0, 104.0)


def test_the_imported_net_gives_the_values_of_the_port(imported, golden):
    name, net, _ = imported
    images = inputs.image_batch(f"dev/{name}", 1, net.params.img_shape[0])
    predictions, localisations, logits, _ = net.net(images)
    layers = {
        "predictions": predictions,
        "localisations": localisations,
        "logits": logits,
    }
    for kind, outputs in layers.items():
        for index, layer in enumerate(outputs):
            key = f"{name}/net/{kind}/{index}"
            expected = golden[f"{key}/val"]
            ours = np.ravel(layer)[golden[f"{key}/idx"]]
            # 20 convolutions in another order of additions; a value that
            # nearly cancels is as exact as the largest that went into it.
            # A probability moves up to half as far as its logit, of up to
            # 880 here, and CPUs without AVX-512 add in yet another order.
            relative = 1e-3 if kind == "predictions" else 1e-5
            np.testing.assert_allclose(
                ours,
                expected,
                atol=relative * np.abs(expected).max(),
                rtol=0,
                err_msg=key,
            )


def as_tensors(arrays):
    return tf_checkpoint.Tensors(arrays)


@pytest.mark.parametrize("net", NETS)
@pytest.mark.parametrize("ending", ["", "_voc"])
def test_both_anchor_sets_of_a_net_are_accepted(net, ending):
    result = port.convert(as_tensors(small(net)), PRESETS[net + ending])
    assert result.params == PRESETS[net + ending]
    assert result.class_names is None and result.detector
    other = net if ending else f"{net}_voc"
    assert result.assumed == (
        "the file does not tell its anchors: taken as those of "
        f"{net}{ending}, not of {other}, with the same layers",
    )


@pytest.mark.parametrize(
    "given, wanted",
    [
        ("ssd_512_vgg", "ssd_300_vgg_voc"),
        ("ssd_300_vgg", "ssd_512_vgg"),
        ("ssd_300_vgg", "ssd_300_resnet50"),
    ],
)
def test_another_net_is_refused_by_name(given, wanted):
    with pytest.raises(UserError) as error:
        port.convert(as_tensors(small(given)), PRESETS[wanted])
    message = str(error.value)
    assert f"net '{given}' does not fit --model_name={wanted}" in message
    assert message.endswith(f"it fits {given}, {given}_voc")


def test_what_is_no_net_of_the_port_is_refused():
    arrays = {"vgg_16/conv1/conv1_1/weights": np.zeros((3, 3, 3, 64))}
    with pytest.raises(UserError, match="scopes found: none"):
        port.convert(as_tensors(arrays), PRESETS["ssd_300_vgg"])


@pytest.mark.parametrize("scope", ["", "mine/net/"])
def test_the_scope_is_found_in_the_file(scope):
    arrays = {
        scope + name.removeprefix("ssd_300_vgg/"): array
        for name, array in small("ssd_300_vgg").items()
    }
    result = port.convert(as_tensors(arrays), PRESETS["ssd_300_vgg"])
    assert list(result.variables) == [
        name.removeprefix("ssd_300_vgg/") for name in small("ssd_300_vgg")
    ]


def test_the_number_of_classes_is_in_the_heads():
    tensors = as_tensors(small("ssd_512_vgg", classes=4))
    result = port.convert(tensors, PRESETS["ssd_512_vgg"])
    assert result.params.num_classes == 4


def test_heads_of_other_anchors_are_refused():
    arrays = small("ssd_300_vgg")
    name = "ssd_300_vgg/block4_box/conv_cls/weights"
    arrays[name] = np.zeros((1, 1, 1, 3 * 21))
    with pytest.raises(UserError, match="63 outputs, no multiple of the 4"):
        port.convert(as_tensors(arrays), PRESETS["ssd_300_vgg"])


def trained(folder):
    """A file with what the port's training writes beside the variables.

    TensorFlow's own optimizers name their slots.
    """
    with tf.Graph().as_default(), v1.Session() as session:
        step = v1.train.get_or_create_global_step()
        weights = [
            v1.get_variable(name, initializer=array)
            for name, array in small("ssd_300_vgg").items()
            if "/conv6/" in name or "/block4_box/" in name
        ]
        loss = v1.add_n([v1.reduce_sum(weight**2) for weight in weights])
        averages = v1.train.ExponentialMovingAverage(0.5, step)
        updates = [
            v1.train.AdamOptimizer(0.5).minimize(loss, step),
            v1.train.RMSPropOptimizer(0.5).minimize(loss),
            v1.train.MomentumOptimizer(0.5, 0.9).minimize(loss),
            v1.train.FtrlOptimizer(0.5).minimize(loss),
        ]
        with tf.control_dependencies(updates):
            update = averages.apply(weights)
        session.run(v1.global_variables_initializer())
        session.run(update)
        path = v1.train.Saver().save(session, str(folder / "model.ckpt-1"))
        shadows = {
            weight.op.name: averages.average(weight) for weight in weights
        }
        names = [variable.op.name for variable in v1.global_variables()]
        return (
            path,
            names,
            session.run({weight.op.name: weight for weight in weights}),
            session.run(shadows),
        )


def test_slots_are_passed_over_and_averages_are_taken_on_request(tmp_path):
    path, names, last, shadows = trained(tmp_path)
    # Adam 2, RMSProp 2, momentum, Ftrl 2 and the average; two powers of
    # Adam's betas and the step.
    assert len(names) == 7 * (1 + 8) + 3
    for ema, expected in ((False, last), (True, shadows)):
        tensors = port.read(path)
        assert sorted(tensors.arrays) == sorted(names)
        result = port.convert(tensors, PRESETS["ssd_300_vgg"], ema=ema)
        assert tensors.unused == ()
        assert len(result.variables) == 7
        for name, array in result.variables.items():
            np.testing.assert_array_equal(
                array, expected[f"ssd_300_vgg/{name}"]
            )
    # They are different ones.
    name = "ssd_300_vgg/conv6/biases"
    assert np.abs(last[name] - shadows[name]).min() > 0.1


def test_averages_are_asked_for_in_vain():
    tensors = as_tensors(small("ssd_300_vgg"))
    with pytest.raises(UserError, match="has no moving averages"):
        port.convert(tensors, PRESETS["ssd_300_vgg"], ema=True)


def test_what_the_net_does_not_know_stays_unused():
    arrays = small("ssd_300_vgg") | {"other/weights": np.zeros(3)}
    tensors = as_tensors(arrays)
    port.convert(tensors, PRESETS["ssd_300_vgg"])
    assert tensors.unused == ("other/weights",)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """A folder with one checkpoint in both formats."""
    folder = tmp_path_factory.mktemp("tiny")
    arrays = {"a/b": np.arange(6, dtype=np.float32).reshape(2, 3)}
    for version in VERSIONS:
        (folder / version).mkdir()
        save(folder / version / "model.ckpt-7", arrays, version)
    return folder


@pytest.mark.parametrize(
    "path",
    [
        "V1",
        "V1/model.ckpt-7",
        "V2",
        "V2/model.ckpt-7",
        "V2/model.ckpt-7.index",
        "V2/model.ckpt-7.meta",
        "V2/model.ckpt-7.data-00000-of-00001",
    ],
)
def test_a_checkpoint_goes_by_several_names(tiny, path):
    arrays = tf_checkpoint.read(tiny / path).arrays
    assert list(arrays) == ["a/b"]
    np.testing.assert_array_equal(arrays["a/b"], [[0, 1, 2], [3, 4, 5]])


def damaged(tiny, folder):
    """Files that are none, by what is wrong with them."""
    whole = (tiny / "V1/model.ckpt-7").read_bytes()
    files = {"empty": b"", "random": b"\x1f\x8b" * 500, "half": whole[:99]}
    for name, content in files.items():
        (folder / name).write_bytes(content)
    for name in ("no_data", "short_data"):
        shutil.copy(tiny / "V2/model.ckpt-7.index", folder / f"{name}.index")
    (folder / "short_data.data-00000-of-00001").write_bytes(b"12")
    return [*files, "no_data", "short_data"]


def test_what_cannot_be_read_is_refused_in_one_line(tiny, tmp_path):
    for name in damaged(tiny, tmp_path):
        with pytest.raises(UserError) as error:
            tf_checkpoint.read(tmp_path / name)
        message = str(error.value)
        assert message.startswith(f"{tmp_path / name}: cannot be read as a")
        assert message.endswith("; name an unpacked, whole one")
        assert "\n" not in message


def test_a_path_without_a_checkpoint_is_refused(tmp_path):
    with pytest.raises(UserError, match="absent: no such checkpoint; name a"):
        tf_checkpoint.read(tmp_path / "absent")
    with pytest.raises(UserError, match="no file `checkpoint` in it"):
        tf_checkpoint.read(tmp_path)


def test_checkpoints_of_train_ssd_need_no_import(tmp_path):
    path = tf.train.Checkpoint(a=tf.Variable(1.0)).write(tmp_path / "ckpt-1")
    with pytest.raises(UserError, match="give its train_dir as --checkpoint_p"):
        tf_checkpoint.read(path)

"""Files that a training starts from, and settings that travel with them."""

import dataclasses

import numpy as np
import pytest
from started import (
    AFTER,
    BEFORE,
    begun,
    save,
    saved_vgg,
    settings_of,
    values,
    write_tf1,
)

from ssd_tf.command import UserError
from ssd_tf.config.training import StartParams
from ssd_tf.nets import scopes
from ssd_tf.nets.ssd import SSDNet
from ssd_tf.weights import start as starts
from ssd_tf.weights import transfer
from ssd_tf.weights.base import Imported


@pytest.fixture(scope="module")
def vgg(tmp_path_factory):
    return saved_vgg(tmp_path_factory.mktemp("vgg"))


def test_a_tf1_checkpoint_goes_by_scope(vgg, tmp_path):
    _, _, source = vgg
    path = write_tf1(source, tmp_path / "old", "mine", ("conv6", "block"))
    settings = settings_of("vgg", BEFORE)
    with pytest.raises(UserError, match="under 'ssd_300_vgg', only .*mine"):
        begun(path, settings)
    scope = {"checkpoint_model_scope": "mine/"}
    with pytest.raises(UserError, match=r"old: conv6/weights is missing, one"):
        begun(path, settings, **scope)
    changed, net, start, report = begun(
        path,
        settings,
        **scope,
        checkpoint_exclude_scopes=("ssd_300_vgg/conv6", "mine/block4_box"),
        ignore_missing_vars=True,
    )
    assert changed == settings
    reasons = transfer.reasons(start, report)
    assert reasons["conv6/biases"] == "excluded"
    assert reasons["block8/conv1x1/biases"] == "missing there"
    for name in report.matched:
        np.testing.assert_array_equal(values(net)[name], values(source)[name])
    assert {name.split("/")[0] for name in report.matched} == {
        *("conv1", "conv2", "conv3", "conv4", "conv5", "conv7")
    }


def test_a_classifier_of_tf_slim_fills_the_trunk(vgg, tmp_path):
    _, _, source = vgg
    # fc6 and fc7 count the units that they compute.
    fc6, fc7 = (
        np.zeros(s, np.float32) for s in ((7, 7, 512, 4096), (4096,) * 2)
    )
    fc6[:], fc7[:] = np.arange(4096), np.arange(4096)
    biases = np.arange(4096, dtype=np.float32)
    dense = {"fc6/weights": fc6, "fc7/weights": fc7[None, None]}
    dense |= {"fc6/biases": biases, "fc7/biases": biases}
    others = ("conv6", "conv7", "block")
    path = write_tf1(source, tmp_path / "vgg", "vgg_16", others, **dense)
    changed, net, start, report = begun(
        path,
        settings_of("vgg", BEFORE),
        checkpoint_exclude_scopes=("vgg_16/conv5", "ssd_300_vgg/block8"),
    )
    # Of preprocessing/vgg_preprocessing.py in tensorflow/models.
    assert changed.params.image_mean == (123.68, 116.78, 103.94)
    assert changed.params.trunk_variant == "slim"
    now, was = values(net), values(source)
    for name in ("conv6", "conv7"):
        units = np.arange(0, 4096, 4)
        np.testing.assert_array_equal(now[f"{name}/biases"], units)
        np.testing.assert_array_equal(now[f"{name}/weights"][0, 0, 7], units)
    np.testing.assert_array_equal(
        now["conv1/conv1_2/weights"], was["conv1/conv1_2/weights"]
    )
    excluded = ("conv5", "block8")
    for name, why in transfer.reasons(start, report).items():
        known = scopes.under(name, excluded)
        assert why == ("excluded" if known else "not in a classifier")
        assert name.startswith(("conv5", "block"))
    assert len(report.matched) == 2 * (2 + 2 + 3 + 3 + 2)


def test_a_classifier_of_tf_slim_has_to_be_the_trunks(vgg, tmp_path):
    path = write_tf1(vgg[2], tmp_path / "vgg", "vgg_16", ("conv6", "block"))
    scope = {"checkpoint_model_scope": "vgg_16"}
    with pytest.raises(UserError, match=r"vgg: conv6/weights is missing, one"):
        begun(path, settings_of("vgg", BEFORE), **scope)
    with pytest.raises(
        UserError, match="does not fit --model_name=ssd_128_mob"
    ):
        begun(path, settings_of("mobilenet", BEFORE), **scope)


@pytest.mark.parametrize(
    ("name", "start_of_file", "kind"),
    [
        ("a.h5", b"\x89HDF\r\n\x1a\n", "keras"),
        ("a.caffemodel", b"\n\x03VGG", "caffe"),
        ("a.pth", b"\x80\x02\x8a\n", "torch"),
    ],
    ids=["keras", "caffe", "torch"],
)
def test_files_of_other_software_are_no_checkpoint(
    name, start_of_file, kind, tmp_path
):
    path = tmp_path / name
    path.write_bytes(start_of_file.ljust(64))
    with pytest.raises(UserError) as error:
        starts.from_checkpoint(path, settings_of("vgg", BEFORE), StartParams())
    assert str(error.value) == (
        f"{path}: a {kind} file, no TensorFlow checkpoint; give it as "
        f"--backbone_weights={path}, or convert it with python -m "
        "ssd_tf.weights"
    )


@pytest.mark.parametrize("class_names", [None, BEFORE], ids=["none", "known"])
def test_what_an_import_took_for_granted_is_said(vgg, class_names, capsys):
    _, settings, source = vgg
    imported = Imported(
        values(source),
        source.params,
        class_names=class_names,
        assumed=("the anchors are those of VOC",),
    )
    changed, weights = starts.from_imported(
        "a.caffemodel", imported, settings, StartParams()
    )
    report = transfer.apply(SSDNet(changed.params), weights)
    transfer.show(report, weights, changed.params)
    shown = capsys.readouterr().out
    assert "assumed: the anchors are those of VOC\n" in shown
    assert ("a.caffemodel are unknown; rows" in shown) == (class_names is None)


def test_another_number_of_classes_in_a_tf1_checkpoint(vgg, tmp_path):
    path = write_tf1(vgg[2], tmp_path / "old", "ssd_300_vgg")
    with pytest.raises(UserError) as error:
        begun(path, settings_of("vgg", AFTER))
    layers = ("block4", "block7", "block8")
    remedy = ",".join(f"{layer}_box/conv_cls" for layer in layers)
    assert "weights has the shape (3, 3, 512, 16), not (3, 3, 512, 24)" in str(
        error.value
    )
    assert str(error.value).endswith(f"--checkpoint_exclude_scopes={remedy}")
    _, _, start, report = begun(
        path,
        settings_of("vgg", AFTER),
        checkpoint_exclude_scopes=tuple(remedy.split(",")),
    )
    assert len(transfer.reasons(start, report)) == 6


def test_a_classifiers_file_fills_the_trunk(vgg):
    _, _, source = vgg
    trunk = {
        name: value
        for name, value in values(source).items()
        if name.startswith("conv")
    }
    settings = settings_of("vgg", AFTER)
    params = dataclasses.replace(
        settings.params,
        num_classes=1,
        image_mean=(9.0, 8.0, 7.0),
        trunk_variant="torchvision",
        anchor_clip="all",
    )
    imported = Imported(trunk, params, class_names=(), detector=False)
    changed, weights = starts.from_imported(
        "vgg.pth", imported, settings, StartParams()
    )
    assert changed.params == dataclasses.replace(
        settings.params,
        image_mean=(9.0, 8.0, 7.0),
        trunk_variant="torchvision",
    )
    report = transfer.apply(SSDNet(changed.params), weights)
    assert set(report.matched) == set(trunk)
    reasons = set(transfer.reasons(weights, report).values())
    assert reasons == {"not in a classifier"}
    del trunk["conv7/biases"]
    with pytest.raises(UserError, match="pth: conv7/biases is missing, one of"):
        transfer.apply(SSDNet(changed.params), weights)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"checkpoint_path": "a", "backbone_weights": "b"},
            "--checkpoint_path=a and --backbone_weights=b: start from one",
        ),
        ({"checkpoint_exclude_scopes": ("a",)}, "of which weights?"),
        ({"checkpoint_model_scope": "a"}, "add --checkpoint_path"),
    ],
    ids=["both", "exclude", "scope"],
)
def test_options_that_contradict_each_other(options, message, tmp_path):
    settings = settings_of("vgg", BEFORE)
    with pytest.raises(UserError) as error:
        starts.initial_weights(settings, tmp_path, StartParams(**options))
    assert message in str(error.value)


def test_whitening_and_clipping_come_with_the_weights(vgg, capsys):
    changed, *_ = begun(vgg[0], settings_of("vgg", BEFORE))
    assert changed.params.image_mean == (1.0, 2.0, 3.0)
    assert changed.params.anchor_clip == "sizes"
    assert "image_mean (1.0, 2.0, 3.0) comes with" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"trunk": "MobileNetV2"}, "trunk vgg_16, not MobileNetV2"),
        ({"width_multiplier": 0.5}, "width_multiplier 1.0, not 0.5"),
    ],
    ids=["trunk", "width"],
)
def test_another_trunk_is_refused(vgg, changes, message):
    with pytest.raises(UserError, match=f"{message}.*--model_name=ssd_300_vgg"):
        begun(vgg[0], settings_of("vgg", BEFORE, **changes))


def test_untrained_parts_start_fresh_without_a_word(vgg, tmp_path):
    _, settings, net = vgg
    heads = tuple(name for name in values(net) if "_box/" in name)
    path = save(net, settings, tmp_path, class_names=(), untrained=heads)
    # Other anchors do not matter: nothing of the heads is taken.
    changed, now, start, report = begun(
        path, settings_of("vgg", AFTER, anchor_offset=0.25)
    )
    reasons = transfer.reasons(start, report)
    assert reasons == dict.fromkeys(heads, "not trained there")
    assert start.rows is None and changed.untrained == ()
    assert changed.params.anchor_clip == "none"
    assert changed.params.image_mean == (1.0, 2.0, 3.0)
    for name, value in values(now).items():
        same = np.array_equal(value, values(net)[name])
        assert same == (name not in heads or "gamma" in name), name

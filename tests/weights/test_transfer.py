"""Starts from other weights: what is taken, what is refused, what it means."""

import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf
import train_process
from processes import error_of, finish, start

from ssd_tf.command import UserError
from ssd_tf.config import presets
from ssd_tf.config import run as config
from ssd_tf.config.run import Config
from ssd_tf.config.training import StartParams
from ssd_tf.nets import checkpoint, scopes
from ssd_tf.nets.layers import variable_name
from ssd_tf.nets.ssd import SSDNet
from ssd_tf.training import train
from ssd_tf.weights import class_rows, transfer
from ssd_tf.weights import start as starts
from ssd_tf.weights.imported import Imported

BEFORE = ("cat", "dog", "cow")
AFTER = ("cow", "fox", "cat", "emu", "ant")


def settings_of(net, class_names, **changes):
    settings = train_process.settings(net, class_names, 2)
    params = dataclasses.replace(settings.params, **changes)
    return dataclasses.replace(settings, params=params)


def random_net(settings, seed=0):
    """A net in which every variable has values of its own."""
    net, values = SSDNet(settings.params), np.random.RandomState(seed)
    for name, variable in net.variables_by_name().items():
        if not name.endswith(("weights", "moving_variance", "gamma")):
            variable.assign(values.normal(0, 0.1, variable.shape))
        if name.endswith("moving_variance"):
            variable.assign(values.uniform(0.5, 2, variable.shape))
    return net


def save(net, settings, folder, **changes):
    checkpoint.save_weights(net, folder)
    settings = dataclasses.replace(settings, params=net.params, **changes)
    config.save(settings, folder)
    return folder


def write_tf1(net, prefix, scope, without=(), **others):
    """A checkpoint by names, as TensorFlow 1 writes it, with a slot."""
    arrays = {
        f"{scope}/{name}": each.numpy()
        for name, each in net.variables_by_name().items()
        if not name.startswith(without or "-")
    }
    arrays["global_step"] = np.int64(7)
    arrays |= {f"{scope}/{name}": array for name, array in others.items()}
    arrays[f"{scope}/conv7/biases/Momentum"] = np.ones(1024, np.float32)
    tf.raw_ops.SaveV2(
        prefix=str(prefix),
        tensor_names=list(arrays),
        shape_and_slices=[""] * len(arrays),
        tensors=list(arrays.values()),
    )
    return prefix


@pytest.fixture(scope="module")
def vgg(tmp_path_factory):
    """A saved VGG net of three layers: (folder, its settings, the net)."""
    settings = settings_of(
        "vgg", BEFORE, image_mean=(1.0, 2.0, 3.0), anchor_clip="sizes"
    )
    net = random_net(settings)
    return save(net, settings, tmp_path_factory.mktemp("vgg")), settings, net


def begun(path, settings, **options):
    """A new net that starts from a checkpoint: (settings, net, report)."""
    settings, weights = starts.from_checkpoint(
        path, settings, StartParams(**options)
    )
    keras.utils.set_random_seed(5)
    net = SSDNet(settings.params)
    return settings, net, transfer.apply(net, weights)


def values(net):
    return {name: x.numpy() for name, x in net.variables_by_name().items()}


# Scopes.


def test_a_scope_is_of_whole_components():
    name = "block10/conv1x1/weights"
    assert scopes.under(name, ["block10"]) and scopes.under(name, [name])
    assert scopes.under(name, ["block9", "block10/conv1x1"])
    assert not scopes.under(name, ["block1", "block10/conv1", "conv1x1"])
    assert scopes.under(name, [""]) and not scopes.under(name, [])


def test_the_models_scope_may_stand_in_front():
    given = ["ssd_300_vgg/conv6", "conv7/", "ssd_300_vgg_voc/block8/conv1x1"]
    given += ["ssd_300_vgg", "ssd_300_vggs/conv6"]
    assert scopes.without_model(given, ["ssd_300_vgg", "ssd_300_vgg_voc"]) == (
        "conv6",
        "conv7",
        "block8/conv1x1",
        "",
        "ssd_300_vggs/conv6",
    )


def test_an_unknown_scope_is_named_with_those_that_there_are():
    with pytest.raises(UserError) as error:
        scopes.check("x_scopes", ["conv7", "conv"], ["conv6/w", "conv7/w"])
    assert str(error.value) == (
        "--x_scopes: nothing is under 'conv'; scopes are conv6, conv7"
    )
    with pytest.raises(UserError, match=r"scopes are b0, .*, b11, \.\.\.$"):
        scopes.check("x_scopes", ["b"], [f"b{i}/w" for i in range(13)])


@pytest.mark.parametrize("end", ["", "/weights"])
def test_a_variables_name_stands_for_its_layer(end):
    net = SSDNet(settings_of("mobilenet", BEFORE).params)
    layer = "stride8_box/conv_cls/pointwise"
    scopes.freeze_others(net, [f"ssd_128_mobilenet_v2/{layer}{end}"])
    assert [variable_name(x) for x in net.model.trainable_variables] == [
        f"{layer}/weights",
        f"{layer}/biases",
    ]


# Head surgery.


def test_rows_go_to_where_their_class_is_now():
    rows = class_rows.ClassRows(("a", "b"), ("b", "c", "a"))
    # Two anchors: background, a, b each.
    source, fresh = np.arange(6), -np.arange(8)
    np.testing.assert_array_equal(
        rows.carried_over(source, fresh), [0, 2, -2, 1, 3, 5, -6, 4]
    )
    kernels = np.broadcast_to(source, (1, 1, 5, 6))
    carried = rows.carried_over(kernels, np.zeros((1, 1, 5, 8), int))
    np.testing.assert_array_equal(carried[0, 0, 4], [0, 2, 0, 1, 3, 5, 0, 4])
    # Six anchors in the file, four here: as it came, to be refused.
    assert rows.carried_over(np.zeros(18), np.zeros(16)).shape == (18,)
    assert rows.table() == [
        ("background", "kept"),
        ("b", "kept"),
        ("c", "fresh"),
        ("a", "kept"),
    ]
    assert class_rows.ClassRows(("a", "b"), ("b",)).table()[2:] == [
        ("a", "dropped")
    ]


def test_only_what_computes_classes_has_rows():
    with_rows = ["block4_box/conv_cls/weights", "block4_box/conv_cls/biases"]
    with_rows += ["extra1_box/conv_cls/pointwise/weights"]
    others = ["block4_box/conv_loc/weights", "conv_cls/weights"]
    others += ["extra1_box/conv_cls/depthwise/weights"]
    others += ["extra1_box/conv_cls/depthwise/BatchNorm/gamma"]
    assert all(class_rows.has_rows(name) for name in with_rows)
    assert not any(class_rows.has_rows(name) for name in others)


@pytest.mark.parametrize("kind", ["vgg", "mobilenet"])
def test_a_kept_class_has_the_logits_that_it_had(kind, tmp_path):
    before = settings_of(kind, BEFORE)
    source = random_net(before)
    path = save(source, before, tmp_path)
    _, net, report = begun(path, settings_of(kind, AFTER))
    side = before.params.img_shape[0]
    image = np.random.RandomState(1).uniform(-1, 1, (1, side, side, 3))
    old, new = source.model(image), net.model(image)
    for was, now in zip(old["logits"], new["logits"], strict=True):
        kept = np.stack([now[..., 0], now[..., 3], now[..., 1]], -1)
        # The same products; their sums may be of another order.
        np.testing.assert_allclose(
            kept, np.delete(was, 2, -1), rtol=1e-5, atol=1e-5
        )
        assert np.std(was) > 1e-3  # not all of them zero
    for was, now in zip(
        old["localisations"], new["localisations"], strict=True
    ):
        np.testing.assert_array_equal(was, now)
    assert report.fresh == {} and set(report.taken) == set(values(net))
    assert dict(report.rows.table()) == {
        "background": "kept",
        "cow": "kept",
        "fox": "fresh",
        "cat": "kept",
        "emu": "fresh",
        "ant": "fresh",
        "dog": "dropped",
    }


def test_rows_of_new_classes_are_those_of_a_fresh_net(vgg):
    settings, net, _ = begun(vgg[0], settings_of("vgg", AFTER))
    keras.utils.set_random_seed(5)
    fresh = values(SSDNet(settings.params))["block4_box/conv_cls/weights"]
    now = values(net)["block4_box/conv_cls/weights"]
    was = values(vgg[2])["block4_box/conv_cls/weights"]
    shape = (3, 3, 512, 4)
    now, fresh, was = (x.reshape(*shape, -1) for x in (now, fresh, was))
    np.testing.assert_array_equal(now[..., [2, 4, 5]], fresh[..., [2, 4, 5]])
    np.testing.assert_array_equal(now[..., [0, 1, 3]], was[..., [0, 3, 1]])


# Excluded and missing parts.


def test_excluded_scopes_start_fresh_and_the_rest_does_not(vgg):
    keras.utils.set_random_seed(5)
    fresh = values(SSDNet(settings_of("vgg", BEFORE).params))
    _, net, report = begun(
        vgg[0],
        settings_of("vgg", BEFORE),
        checkpoint_exclude_scopes=("ssd_300_vgg/conv6", "block4_box"),
    )
    now, was = values(net), values(vgg[2])
    excluded = {
        name for name in now if name.split("/")[0] in ("conv6", "block4_box")
    }
    assert len(excluded) == 2 + 5 and set(report.fresh) == excluded
    assert set(report.fresh.values()) == {"excluded"}
    for name, value in now.items():
        expected = fresh if name in excluded else was
        np.testing.assert_array_equal(value, expected[name], err_msg=name)


def test_an_excluded_scope_that_is_nowhere_is_refused(vgg):
    with pytest.raises(
        UserError, match="exclude_scopes: nothing is under 'block1'; .*block8"
    ):
        begun(
            vgg[0],
            settings_of("vgg", BEFORE),
            checkpoint_exclude_scopes=("block1",),
        )


def test_untrained_parts_start_fresh_without_a_word(vgg, tmp_path):
    _, settings, net = vgg
    heads = tuple(name for name in values(net) if "_box/" in name)
    path = save(net, settings, tmp_path, class_names=(), untrained=heads)
    # Other anchors do not matter: nothing of the heads is taken.
    changed, now, report = begun(
        path, settings_of("vgg", AFTER, anchor_offset=0.25)
    )
    assert report.fresh == dict.fromkeys(heads, "not trained there")
    assert report.rows is None and changed.untrained == ()
    assert changed.params.anchor_clip == "none"
    assert changed.params.image_mean == (1.0, 2.0, 3.0)
    for name, value in values(now).items():
        same = np.array_equal(value, values(net)[name])
        assert same == (name not in heads or "gamma" in name), name


# What travels with the weights, and what must be the same.


def test_whitening_and_clipping_come_with_the_weights(vgg, capsys):
    changed, _, _ = begun(vgg[0], settings_of("vgg", BEFORE))
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


@pytest.mark.parametrize(
    "changes",
    [
        {"anchor_sizes": ((30.0, 60.0), (60.0, 111.0), (111.0, 162.0))},
        {"anchor_ratios": ((3.0, 0.5), (2.0, 0.5) * 2, (2.0, 0.5) * 2)},
        {"anchor_offset": 0.25},
        {"anchor_steps": ((8.0, 8.0),) * 3},
        {"prior_scaling": (1.0, 1.0, 1.0, 1.0)},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_other_anchors_are_refused_unless_heads_are_excluded(vgg, changes):
    (name, value), *_ = changes.items()
    settings = settings_of("vgg", BEFORE, **changes)
    with pytest.raises(UserError) as error:
        begun(vgg[0], settings)
    heads = "block4_box,block7_box,block8_box"
    message = str(error.value)
    assert f"heads were trained with {name} " in message
    assert f"not {value}" in message
    assert message.endswith(f"--checkpoint_exclude_scopes={heads}")
    begun(vgg[0], settings, checkpoint_exclude_scopes=tuple(heads.split(",")))


def test_heads_may_move_to_another_size_of_input(vgg):
    _, settings, source = vgg
    other = presets.resized(settings.params, (96, 160))
    changed, net, report = begun(
        vgg[0], dataclasses.replace(settings, params=other)
    )
    assert report.fresh == {} and changed.params.img_shape == (96, 160)
    for name, value in values(source).items():
        np.testing.assert_array_equal(value, values(net)[name])


# TensorFlow 1's checkpoints.


def test_a_tf1_checkpoint_goes_by_scope(vgg, tmp_path):
    _, _, source = vgg
    path = write_tf1(source, tmp_path / "old", "mine", ("conv6", "block"))
    settings = settings_of("vgg", BEFORE)
    with pytest.raises(UserError, match="under 'ssd_300_vgg', only .*mine"):
        begun(path, settings)
    scope = {"checkpoint_model_scope": "mine/"}
    with pytest.raises(UserError, match=r"old: conv6/weights is missing, one"):
        begun(path, settings, **scope)
    changed, net, report = begun(
        path,
        settings,
        **scope,
        checkpoint_exclude_scopes=("ssd_300_vgg/conv6", "mine/block4_box"),
        ignore_missing_vars=True,
    )
    assert changed == settings
    assert report.fresh["conv6/biases"] == "excluded"
    assert report.fresh["block8/conv1x1/biases"] == "missing there"
    for name in report.taken:
        np.testing.assert_array_equal(values(net)[name], values(source)[name])
    assert {name.split("/")[0] for name in report.taken} == {
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
    changed, net, report = begun(
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
    for name, why in report.fresh.items():
        known = scopes.under(name, excluded)
        assert why == ("excluded" if known else "not in a classifier")
        assert name.startswith(("conv5", "block"))
    assert len(report.taken) == 2 * (2 + 2 + 3 + 3 + 2)


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


def test_what_has_nothing_for_the_net_is_refused(vgg, tmp_path):
    path = tmp_path / "old"
    names = [f"mine/Conv/{index}" for index in range(4)]
    tf.raw_ops.SaveV2(
        prefix=str(path),
        tensor_names=names,
        shape_and_slices=[""] * 4,
        tensors=[np.ones(3, np.float32)] * 4,
    )
    settings = settings_of("vgg", BEFORE)
    ours = "ssd_300_vgg's conv1/conv1_1/weights, conv1/conv1_1/biases, conv1/"
    for options in ({"ignore_missing_vars": True}, {}):
        with pytest.raises(UserError) as error:
            begun(path, settings, checkpoint_model_scope="mine", **options)
        message = str(error.value)
        assert message.startswith(
            f"{path}: nothing would be taken of Conv/0, Conv/1, Conv/2, ... "
            f"for {ours}"
        )
        assert message.endswith(
            "choose a --model_name, a --checkpoint_model_scope and weights "
            "that go together"
        )
    with pytest.raises(UserError) as error:
        begun(vgg[0], settings, checkpoint_exclude_scopes=("ssd_300_vgg",))
    assert f"{vgg[0]}: nothing would be taken of conv1/" in str(error.value)
    assert ours in str(error.value)
    assert str(error.value).endswith("less by --checkpoint_exclude_scopes")


def test_unnamed_classes_are_kept_by_number_and_that_is_said(
    vgg, tmp_path, capsys
):
    _, settings, source = vgg
    path = write_tf1(source, tmp_path / "old", "ssd_300_vgg")
    unknown = f"class names of {path} are unknown; rows are kept by number"
    _, net, report = begun(path, settings)
    name = "block4_box/conv_cls/weights"
    np.testing.assert_array_equal(values(net)[name], values(source)[name])
    transfer.show(report)
    assert unknown in capsys.readouterr().out
    heads = tuple(f"{layer}_box" for layer in settings.params.feat_layers)
    _, _, report = begun(path, settings, checkpoint_exclude_scopes=heads)
    transfer.show(report)
    assert unknown not in capsys.readouterr().out


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
    transfer.show(transfer.apply(SSDNet(changed.params), weights))
    shown = capsys.readouterr().out
    assert "assumed: the anchors are those of VOC\n" in shown
    assert ("a.caffemodel are unknown; rows" in shown) == (class_names is None)


def test_a_trunk_is_one_part_whatever_it_started_from(capsys):
    params = settings_of("mobilenet", BEFORE).params
    why = "missing there"
    fresh = {"Conv1/weights": why, "bn_Conv1/beta": why, "extra1_box/a": why}
    transfer.show(
        transfer.Report("a", params, ("Conv1/b",), fresh, None, False)
    )
    lines = capsys.readouterr().out.splitlines()
    rows = [line.strip("│").split("│") for line in lines if line[0] == "│"]
    assert [[cell.strip() for cell in row] for row in rows] == [
        ["trunk", "1", "loaded"],
        ["trunk", "2", "fresh: missing there"],
        ["extra1_box", "1", "fresh: missing there"],
    ]


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
    _, _, report = begun(
        path,
        settings_of("vgg", AFTER),
        checkpoint_exclude_scopes=tuple(remedy.split(",")),
    )
    assert len(report.fresh) == 6


# Files of other software.


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
    assert set(report.taken) == set(trunk)
    assert set(report.fresh.values()) == {"not in a classifier"}
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
        starts.begin(settings, tmp_path, StartParams(**options))
    assert message in str(error.value)


def test_another_trunk_by_name():
    params = starts.with_trunk(presets.SSD_300_MOBILENET_V2_035, "MobileNet")
    assert (params.trunk, params.width_multiplier) == ("MobileNet", 1.0)
    assert params.image_mean == pytest.approx((127.5,) * 3)
    caffe = starts.with_trunk(presets.SSD_300_MOBILENET_V2, "ResNet50")
    assert caffe.image_mean == pytest.approx((123.68, 116.779, 103.939))
    with pytest.raises(UserError, match="heads of ssd_300_vgg are made for"):
        starts.with_trunk(presets.SSD_300_VGG, "ResNet50")
    with pytest.raises(UserError, match="--trunk=ResNet5: .* no model"):
        starts.with_trunk(presets.SSD_300_MOBILENET_V2, "ResNet5")


# Runs that start so.


def run(trained, train_dir, path, class_names=BEFORE, scopes=(), **options):
    """Two steps as train_ssd.py makes them; the net and its settings."""
    settings = settings_of("mobilenet", class_names)
    training = dataclasses.replace(settings.training, trainable_scopes=scopes)
    settings, weights = starts.begin(
        Config(settings.params, class_names, training),
        train_dir,
        StartParams(checkpoint_path=str(path), **options),
    )
    return train.fit(settings, train_dir, trained.reader(), 48, start=weights)


def test_what_is_frozen_stays_and_batch_norm_with_it(trained, tmp_path, capsys):
    params = dataclasses.replace(trained.net.params, image_mean=(7.0,) * 3)
    path = tmp_path / "source"
    checkpoint.save_weights(trained.net, path)
    config.save(Config(params, trained.settings.class_names), path)
    heads = [f"{layer}_box" for layer in params.feat_layers]
    part = ("ssd_128_mobilenet_v2/extra2", "extra1", *heads)
    names = trained.settings.class_names
    net = run(trained, tmp_path / "run", path, names, part)
    was, now = values(trained.net), values(net)
    moved = {name for name in now if not np.array_equal(was[name], now[name])}
    scopes_moved = {name.split("/")[0] for name in moved}
    assert scopes_moved == {"extra1", "extra2", *heads}
    assert "extra1/conv1x1/BatchNorm/moving_mean" in moved
    assert "Conv1/weights" not in moved
    saved = config.load(tmp_path / "run")
    assert saved.params == net.params and saved.params.feat_shapes
    assert saved.params.image_mean == (7.0, 7.0, 7.0)
    assert saved.training.trainable_scopes == part

    # The same command again goes on: the whitening is the run's.
    capsys.readouterr()
    again = run(trained, tmp_path / "run", "/nowhere", names, part)
    shown = capsys.readouterr().out
    assert "going on from step 2" in shown
    assert "has a checkpoint; /nowhere is not read" in shown
    assert again.params.image_mean == (7.0, 7.0, 7.0)
    for name, value in values(again).items():
        np.testing.assert_array_equal(value, now[name])


def test_another_trunk_is_refused_before_anything_is_said(trained, capsys):
    params = dataclasses.replace(
        trained.settings.params, trunk="ResNet50", image_mean=(1.0, 2.0, 3.0)
    )
    settings = dataclasses.replace(trained.settings, params=params)
    with pytest.raises(
        UserError, match="trunk MobileNetV2, not ResNet50.* another --train_dir"
    ):
        starts.begin(settings, trained.train_dir, StartParams())
    assert capsys.readouterr().out == ""


def test_an_unknown_trainable_scope_is_refused(trained, tmp_path):
    with pytest.raises(
        UserError,
        match="--trainable_scopes: nothing is under 'extra'; .*Conv1",
    ):
        run(trained, tmp_path / "run", trained.train_dir, BEFORE, ("extra",))
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_replicas_start_alike(shapes_data, tmp_path):
    """On two devices every copy has the weights that were read."""
    script = TRANSFER_ON_TWO_DEVICES
    path = tmp_path / "script.py"
    path.write_text(script)
    output = finish(
        start(path, PYTHONPATH="tests/support:.", OUT=str(tmp_path / "net"))
    )
    assert output.splitlines()[-1] == "2 copies alike"


TRANSFER_ON_TWO_DEVICES = """
import os
import numpy as np, train_process
from ssd_tf.config.training import StartParams
from ssd_tf.config import run as config
from ssd_tf.nets import checkpoint
from ssd_tf.nets.ssd import SSDNet
from ssd_tf.weights import start as starts, transfer

strategy = train_process.strategy_of("mirrored")
before = train_process.settings("vgg", ["cat", "dog"], 2)
source = SSDNet(before.params)
checkpoint.save_weights(source, os.environ["OUT"])
config.save(before, os.environ["OUT"])
after = train_process.settings("vgg", ["dog", "cow", "fox"], 2)
after, start = starts.from_checkpoint(
    os.environ["OUT"], after, StartParams()
)
with strategy.scope():
    net = SSDNet(after.params)
    transfer.apply(net, start)
was = source.variables_by_name()
for name, variable in net.variables_by_name().items():
    copies = [each.numpy() for each in variable.value.values]
    assert len(copies) == 2
    np.testing.assert_array_equal(*copies)
    if "conv_cls" not in name:
        np.testing.assert_array_equal(copies[0], was[name].numpy())
    else:
        now = copies[1].reshape(*copies[1].shape[:-1], -1, 4)
        old = was[name].numpy()
        old = old.reshape(*old.shape[:-1], -1, 3)
        np.testing.assert_array_equal(now[..., :2], old[..., [0, 2]])
print("2 copies alike")
"""


# The command.


@pytest.fixture(scope="module")
def command(trained):
    return (
        "train_ssd.py",
        f"--dataset_dir={trained.dataset_dir}",
        "--model_name=ssd_128_mobilenet_v2",
        "--max_number_of_steps=2",
        "--batch_size=4",
    )


@pytest.mark.slow
def test_the_command_starts_from_a_run_of_other_classes(
    trained, command, tmp_path
):
    names = trained.settings.class_names
    other = dataclasses.replace(
        checkpoint.load_config(trained.train_dir),
        class_names=("whale", *names[1:]),
    )
    config.save(other, save(trained.net, other, tmp_path / "source"))
    output = finish(
        start(
            *command,
            f"--train_dir={tmp_path / 'run'}",
            f"--checkpoint_path={tmp_path / 'source'}",
            "--checkpoint_exclude_scopes=extra2,"
            "ssd_128_mobilenet_v2/extra2_box/conv_loc",
            "--trainable_scopes=extra1,extra2,stride8_box,extra2_box",
        )
    )
    table = [
        [cell.strip() for cell in line.strip("│").split("│")]
        for line in output.splitlines()
        if line.startswith("│")
    ]
    assert ["whale", "dropped"] in table and [names[0], "fresh"] in table
    assert [names[1], "kept"] in table and ["background", "kept"] in table
    parts = {
        (part, how): number for part, number, *rest in table for how in rest
    }
    assert int(parts["extra2", "fresh: excluded"]) == 15
    assert int(parts["extra2_box", "fresh: excluded"]) == 7
    assert int(parts["extra2_box", "loaded"]) == 7
    assert ("trunk", "loaded") in parts
    was = trained.net.variables_by_name()
    now = checkpoint.load_net(tmp_path / "run").variables_by_name()
    for name, same in {
        "Conv1/weights": True,
        "bn_Conv1/moving_mean": True,
        "extra1_box/conv_loc/pointwise/weights": True,
        "extra1/conv1x1/weights": False,
    }.items():
        assert np.array_equal(was[name], now[name]) == same, name


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--image_size=300x"], "--image_size=300x: expected HEIGHTxWIDTH"),
        (["--image_size=0"], "--image_size=0: expected"),
        (["--checkpoint_exclude_scopes=a,,b"], "scopes=a,,b: expected scopes"),
        (["--trunk=ResNet5"], "--trunk=ResNet5: "),
        (["--checkpoint_path={train_dir}/ckpt-9"], "ckpt-9: "),
        (["--checkpoint_path=/nowhere"], "/nowhere: "),
        (
            ["--checkpoint_path={train_dir}", "--image_size=64x100"]
            + ["--checkpoint_exclude_scopes=block_1"],
            "nothing is under 'block_1'; scopes are Conv1, bn_Conv1",
        ),
    ],
    ids=lambda value: value[0].split("=")[0] if isinstance(value, list) else "",
)
def test_mistakes_are_one_line(trained, command, tmp_path, arguments, message):
    arguments = [word.format(train_dir=trained.train_dir) for word in arguments]
    train_dir = f"--train_dir={tmp_path / 'run'}"
    assert message in error_of(*command, train_dir, *arguments)
    assert not (tmp_path / "run").exists()

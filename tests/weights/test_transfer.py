"""Weights in another net: rows of classes, excluded parts, refusals."""

import dataclasses

import keras
import numpy as np
import pytest
from started import (
    AFTER,
    BEFORE,
    begun,
    random_net,
    save,
    saved_vgg,
    settings_of,
    values,
    write_checkpoint,
    write_tf1,
)

from ssd_tf.command import UserError
from ssd_tf.config import presets
from ssd_tf.nets.ssd import SSDNet
from ssd_tf.weights import base, transfer


@pytest.fixture(scope="module")
def vgg(tmp_path_factory):
    return saved_vgg(tmp_path_factory.mktemp("vgg"))


def test_rows_go_to_where_their_class_is_now():
    rows = transfer.ClassRows(("a", "b"), ("b", "c", "a"))
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
    assert transfer.ClassRows(("a", "b"), ("b",)).table()[2:] == [
        ("a", "dropped")
    ]


def test_only_what_computes_classes_has_rows():
    with_rows = ["block4_box/conv_cls/weights", "block4_box/conv_cls/biases"]
    with_rows += ["extra1_box/conv_cls/pointwise/weights"]
    others = ["block4_box/conv_loc/weights", "conv_cls/weights"]
    others += ["extra1_box/conv_cls/depthwise/weights"]
    others += ["extra1_box/conv_cls/depthwise/BatchNorm/gamma"]
    assert all(transfer.has_rows(name) for name in with_rows)
    assert not any(transfer.has_rows(name) for name in others)


@pytest.mark.parametrize("kind", ["vgg", "mobilenet"])
def test_a_kept_class_has_the_logits_that_it_had(kind, tmp_path):
    before = settings_of(kind, BEFORE)
    source = random_net(before)
    path = save(source, before, tmp_path)
    _, net, start, report = begun(path, settings_of(kind, AFTER))
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
    assert set(report.matched) == set(values(net))
    assert dict(start.rows.table()) == {
        "background": "kept",
        "cow": "kept",
        "fox": "fresh",
        "cat": "kept",
        "emu": "fresh",
        "ant": "fresh",
        "dog": "dropped",
    }


def test_rows_of_new_classes_are_those_of_a_fresh_net(vgg):
    settings, net, _, _ = begun(vgg[0], settings_of("vgg", AFTER))
    keras.utils.set_random_seed(5)
    fresh = values(SSDNet(settings.params))["block4_box/conv_cls/weights"]
    now = values(net)["block4_box/conv_cls/weights"]
    was = values(vgg[2])["block4_box/conv_cls/weights"]
    shape = (3, 3, 512, 4)
    now, fresh, was = (x.reshape(*shape, -1) for x in (now, fresh, was))
    np.testing.assert_array_equal(now[..., [2, 4, 5]], fresh[..., [2, 4, 5]])
    np.testing.assert_array_equal(now[..., [0, 1, 3]], was[..., [0, 3, 1]])


def test_excluded_scopes_start_fresh_and_the_rest_does_not(vgg):
    keras.utils.set_random_seed(5)
    fresh = values(SSDNet(settings_of("vgg", BEFORE).params))
    _, net, start, report = begun(
        vgg[0],
        settings_of("vgg", BEFORE),
        checkpoint_exclude_scopes=("ssd_300_vgg/conv6", "block4_box"),
    )
    now, was = values(net), values(vgg[2])
    excluded = {
        name for name in now if name.split("/")[0] in ("conv6", "block4_box")
    }
    assert len(excluded) == 2 + 5
    reasons = transfer.reasons(start, report)
    assert reasons == dict.fromkeys(reasons, "excluded")
    assert reasons.keys() == excluded
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
    changed, net, _, report = begun(
        vgg[0], dataclasses.replace(settings, params=other)
    )
    assert changed.params.img_shape == (96, 160)
    assert set(report.matched) == set(values(net))
    for name, value in values(source).items():
        np.testing.assert_array_equal(value, values(net)[name])


def test_what_has_nothing_for_the_net_is_refused(vgg, tmp_path):
    path = tmp_path / "old"
    names = [f"mine/Conv/{index}" for index in range(4)]
    write_checkpoint(path, dict.fromkeys(names, np.ones(3, np.float32)))
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
    _, net, start, report = begun(path, settings)
    name = "block4_box/conv_cls/weights"
    np.testing.assert_array_equal(values(net)[name], values(source)[name])
    transfer.show(report, start, settings.params)
    assert unknown in capsys.readouterr().out
    heads = tuple(f"{layer}_box" for layer in settings.params.feat_layers)
    _, _, start, report = begun(path, settings, checkpoint_exclude_scopes=heads)
    transfer.show(report, start, settings.params)
    assert unknown not in capsys.readouterr().out


def test_a_trunk_is_one_part_whatever_it_started_from(capsys):
    params = settings_of("mobilenet", BEFORE).params
    fresh = ("Conv1/weights", "bn_Conv1/beta", "extra1_box/a")
    report = base.Report(("Conv1/b",), fresh, (), (), ())
    start = transfer.Start("a", base.Imported({}, params))
    transfer.show(report, start, params)
    lines = capsys.readouterr().out.splitlines()
    rows = [line.strip("│").split("│") for line in lines if line[0] == "│"]
    assert [[cell.strip() for cell in row] for row in rows] == [
        ["trunk", "1", "loaded"],
        ["trunk", "2", "fresh: missing there"],
        ["extra1_box", "1", "fresh: missing there"],
    ]

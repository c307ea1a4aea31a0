"""Parts of a net by the prefixes of its variables' names."""

import pytest
import train_process

from ssd_tf.command import UserError
from ssd_tf.nets import scopes
from ssd_tf.nets.layers import variable_name
from ssd_tf.nets.ssd import SSDNet


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
    net = SSDNet(train_process.settings("mobilenet", ["cat"], 2).params)
    layer = "stride8_box/conv_cls/pointwise"
    scopes.freeze_others(net, [f"ssd_128_mobilenet_v2/{layer}{end}"])
    assert [variable_name(x) for x in net.model.trainable_variables] == [
        f"{layer}/weights",
        f"{layer}/biases",
    ]

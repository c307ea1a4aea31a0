"""config.json: what goes in comes out; what is not ours is refused."""

import dataclasses
import json

import pytest

from ssd_tf.command import UserError, settings
from ssd_tf.config import check_choice, presets
from ssd_tf.config import run as config
from ssd_tf.config import training as recipe
from ssd_tf.config.net import ExtraBlock, SSDParams


def changed(value):
    """Another value of the same type, in every part."""
    if dataclasses.is_dataclass(value):
        fields = [field.name for field in dataclasses.fields(value)]
        return dataclasses.replace(
            value, **{name: changed(getattr(value, name)) for name in fields}
        )
    if isinstance(value, tuple):
        return tuple(changed(item) for item in value) or ("é",)
    if isinstance(value, bool):
        return not value
    if isinstance(value, str):
        return value + "-é"
    return value + 1 if isinstance(value, int) else value / 3 + 0.1


def settings_of(name="ssd_300_vgg", **options):
    return config.Config(presets.PRESETS[name], ("cat", "dog"), **options)


@pytest.fixture
def saved(tmp_path):
    """A train_dir, and a function that changes its config.json."""
    config.save(settings_of(), tmp_path)
    path = tmp_path / "config.json"

    def edit(change):
        values = json.loads(path.read_text("utf-8"))
        change(values)
        path.write_text(json.dumps(values), "utf-8")

    return tmp_path, edit


@pytest.mark.parametrize("name", presets.PRESETS)
def test_presets_come_back_equal(name, tmp_path):
    config.save(settings_of(name), tmp_path)
    assert config.load(tmp_path) == settings_of(name)


def test_values_that_are_no_defaults_come_back(tmp_path):
    before = settings_of(training=changed(recipe.TrainParams()))
    before = dataclasses.replace(before, params=changed(before.params))
    training = before.training
    for part in (
        before.params,
        training,
        training.loss,
        training.augmentation,
    ):
        for field in dataclasses.fields(part):
            assert getattr(part, field.name) != field.default, field.name
    config.save(before, tmp_path)
    after = config.load(tmp_path)
    assert after == before
    assert hash(after) == hash(before)  # tuples, at every depth
    assert isinstance(after.params.extra_blocks[0], ExtraBlock)


def test_settings_that_are_missing_take_their_defaults(saved):
    train_dir, edit = saved
    edit(lambda values: values["training"]["loss"].pop("alpha"))
    assert config.load(train_dir) == settings_of()


@pytest.mark.parametrize(
    ("change", "culprit"),
    [
        (lambda values: values.update(colour=1), "colour"),
        (lambda values: values["params"].update(colour=1), "colour"),
        (lambda values: values["training"]["loss"].update(x=1), "'x'"),
        (lambda values: values["params"]["extra_blocks"][0].update(y=1), "'y'"),
        (lambda values: values["params"].pop("img_shape"), "img_shape"),
        (lambda values: values.pop("class_names"), "class_names"),
        (lambda values: values.update(format_version=99), "99"),
        (lambda values: values.update(params=[1, 2]), "SSDParams"),
    ],
)
def test_what_does_not_fit_is_named_with_the_file(saved, change, culprit):
    train_dir, edit = saved
    edit(change)
    with pytest.raises(UserError, match="config.json") as error:
        config.load(train_dir)
    assert culprit in str(error.value)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "3", '"a"'])
def test_a_file_that_is_no_configuration(tmp_path, text):
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(UserError, match="config.json"):
        config.load(tmp_path)


def test_no_file(tmp_path):
    with pytest.raises(UserError, match="config.json: not found"):
        config.load(tmp_path)


def test_counts_follow_from_the_settings():
    params = presets.SSD_512_VGG
    assert params.anchors_per_cell == (4, 6, 6, 6, 6, 4, 4)
    assert params.no_annotation_label == 21
    assert dataclasses.replace(params, num_classes=3).no_annotation_label == 3


@pytest.mark.parametrize(
    "params", presets.PRESETS.values(), ids=presets.PRESETS
)
def test_every_layer_of_a_preset_has_all_its_settings(params):
    layers = len(params.feat_layers)
    for name in (
        "anchor_sizes",
        "anchor_ratios",
        "normalizations",
    ):
        assert len(getattr(params, name)) == layers, name


@pytest.mark.parametrize(
    "cls", [SSDParams, recipe.TrainParams, recipe.LossParams]
)
def test_defaults_are_among_the_choices(cls):
    found = [field for field in settings.fields(cls) if field.setting.choices]
    assert found
    for field in found:
        check_choice(cls, field.name, field.default)
        last = field.setting.choices[-1]
        with pytest.raises(ValueError, match=f"^{field.name} .*{last}; .*'no'"):
            check_choice(cls, field.name, "no")


def test_settings_cannot_be_changed_in_place():
    with pytest.raises(dataclasses.FrozenInstanceError):
        presets.SSD_300_VGG.num_classes = 3

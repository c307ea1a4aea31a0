"""Settings: one dataclass field gives flag, help, conversion and checks."""

import dataclasses
import math
import pathlib

import numpy as np
import pytest
from absl import flags

from ssd_tf import command
from ssd_tf.command import UserError
from ssd_tf.command.flags import define, help_of, read
from ssd_tf.command.settings import (
    all_fields,
    build,
    check_choice,
    choices,
    converted,
    fields,
    require,
    setting,
)
from ssd_tf.config.evaluation import (
    DetectionParams,
    EvalOptions,
    EvalParams,
)
from ssd_tf.config.export import ExportOptions
from ssd_tf.config.training import TrainOptions


@dataclasses.dataclass(frozen=True)
class Paint:
    """A nested dataclass with presets."""

    gloss: float = setting(0.5, "Share of gloss.", "paint", low=0, high=1)
    layers: int = setting(2, "Number of layers.", "paint", low=1)
    tones: tuple[float, ...] = setting(
        (0.25, 0.75), "Tones.", "paint", low=0, high=1, is_valid=bool
    )


PAINTS = {"plain": Paint(), "thick": Paint(layers=9, tones=(0.5,))}


@dataclasses.dataclass(frozen=True)
class Wheels:
    """A nested dataclass without presets."""

    count: int = setting(4, "Number of wheels.", "wheels", low=3, high=18)
    size: tuple[int, int] = setting((1, 2), "Width and height.", "wheels")


@dataclasses.dataclass(frozen=True)
class Car:
    """The settings of a hand-made command."""

    name: str = setting("car", "Name of the car.", "car")
    colour: str = setting(
        "red", "Colour of the car.", "car", choices=("red", "blue")
    )
    owner: str | None = setting(None, "Name of the owner [none].", "car")
    speed: float = setting(1.5, "Speed.", "car", low=0, flag="top_speed")
    open_top: bool = setting(False, "Build a cabriolet.", "car")
    tags: tuple[str, ...] = setting(
        (),
        "Tags.",
        "car",
        convert=lambda words: tuple(word.strip() for word in words),
        is_valid=all,
        expected="words separated by commas",
    )
    doors: int = 5  # no setting: no flag, and not to be set by name
    paint: Paint = setting(
        PAINTS["plain"], "Named paint.", "paint", presets=PAINTS
    )
    wheels: Wheels = Wheels()
    given: frozenset[str] = frozenset()


def car(**values):
    return build(Car, values)


def parse(*arguments, cls=Car):
    values = flags.FlagValues()
    define(cls, values)
    values(["program", *arguments])
    return read(cls, values)


def message(**values):
    with pytest.raises(UserError) as error:
        car(**values)
    return str(error.value)


def test_nothing_given_is_the_default():
    assert car() == Car() == parse()
    assert car().given == frozenset()


@pytest.mark.parametrize(
    ("name", "value", "field", "expected"),
    [
        ("top_speed", 3, "speed", 3.0),
        ("top_speed", np.float32(0.5), "speed", 0.5),
        ("top_speed", np.int64(3), "speed", 3.0),
        ("top_speed", "2.5", "speed", 2.5),
        ("name", pathlib.PurePosixPath("a/b"), "name", "a/b"),
        ("owner", None, "owner", None),
        ("owner", "Ada", "owner", "Ada"),
        ("open_top", True, "open_top", True),
        ("tags", ["a ", " b"], "tags", ("a", "b")),
        ("tags", "a, b", "tags", ("a", "b")),
        ("tags", (), "tags", ()),
    ],
)
def test_values_become_the_type_of_their_field(name, value, field, expected):
    result = getattr(build(Car, {name: value}), field)
    assert result == expected and type(result) is type(expected)


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("count", 4.0, 4),
        ("count", np.int32(6), 6),
        ("count", "8", 8),
        ("size", (3, 4), (3, 4)),
        ("size", [3.0, "4"], (3, 4)),
        ("size", np.array([3, 4]), (3, 4)),
    ],
)
def test_whole_numbers_of_a_nested_dataclass(name, value, expected):
    result = getattr(build(Car, {name: value}).wheels, name)
    assert result == expected
    items = result if isinstance(result, tuple) else (result,)
    assert all(type(item) is int for item in items)


def test_large_whole_numbers_keep_every_digit():
    @dataclasses.dataclass(frozen=True)
    class Seeded:
        seed: int = setting(0, "Seed.", "run", low=0)

    # 2^53 + 1 is no float64.
    assert build(Seeded, {"seed": 2**53 + 1}).seed == 2**53 + 1
    assert parse(f"--seed={2**53 + 1}", cls=Seeded).seed == 2**53 + 1


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("top_speed", math.nan, "a number of at least 0"),
        ("top_speed", math.inf, "a number of at least 0"),
        ("top_speed", -0.1, "a number of at least 0"),
        ("top_speed", True, "a number of at least 0"),
        ("top_speed", None, "a number of at least 0"),
        ("top_speed", "fast", "a number of at least 0"),
        ("top_speed", 10**400, "a number of at least 0"),
        ("count", 2, "a whole number from 3 to 18"),
        ("count", 19, "a whole number from 3 to 18"),
        ("count", 4.5, "a whole number from 3 to 18"),
        ("count", math.nan, "a whole number from 3 to 18"),
        ("count", math.inf, "a whole number from 3 to 18"),
        ("count", False, "a whole number from 3 to 18"),
        ("count", None, "a whole number from 3 to 18"),
        ("open_top", 1, "True or False"),
        ("open_top", "true", "True or False"),
        ("open_top", None, "True or False"),
        ("name", 3, "text"),
        ("name", None, "text"),
        ("owner", 3, "text"),
        ("colour", "green", "one of red, blue"),
        ("colour", None, "one of red, blue"),
        ("tags", "a,,b", "words separated by commas"),
        ("tags", 3, "words separated by commas"),
        ("size", 3, "a list, each a whole number"),
        ("size", (1, 2, 3), "a list, each a whole number"),
        ("tones", (0.5, 1.5), "a list, each a number from 0 to 1"),
        ("tones", (0.5, math.nan), "a list, each a number from 0 to 1"),
        ("tones", (), "a list, each a number from 0 to 1"),
        ("paint", "shiny", "plain or thick or Paint"),
        ("paint", ["thick"], "plain or thick or Paint"),
        ("paint", None, "plain or thick or Paint"),
        ("wheels", 4, "Wheels"),
    ],
)
def test_an_invalid_value_is_told_with_what_is_valid(name, value, expected):
    text = message(**{name: value})
    assert text.startswith(f"{name}=") and text.endswith(
        f": expected {expected}"
    )


def test_a_message_shows_lists_as_they_are_typed():
    assert message(size=(1, 2, 3)).startswith("size=1,2,3: ")


def test_bounds_are_valid_themselves():
    assert car(count=3).wheels.count == 3
    assert car(count=18).wheels.count == 18
    assert car(gloss=0).paint.gloss == 0 and car(gloss=1).paint.gloss == 1


def test_nested_settings_have_flat_names():
    built = car(count=6, gloss=1, top_speed=2)
    assert built == Car(
        speed=2.0,
        paint=Paint(gloss=1.0),
        wheels=Wheels(count=6),
        given=frozenset({"count", "gloss", "top_speed"}),
    )


def test_a_nested_dataclass_is_taken_whole_and_single_values_change_it():
    assert car(wheels=Wheels(8, (3, 3))).wheels == Wheels(8, (3, 3))
    assert car(wheels=Wheels(8, (3, 3)), count=6).wheels == Wheels(6, (3, 3))


def test_a_preset_is_named_and_single_values_change_it():
    assert car(paint="thick").paint == PAINTS["thick"]
    assert car(paint=PAINTS["thick"]).paint == PAINTS["thick"]
    changed = Paint(gloss=0.1, layers=9, tones=(0.5,))
    assert car(paint="thick", gloss=0.1).paint == changed
    assert parse("--paint=thick", "--gloss=.1").paint == changed
    # The order of the flags does not matter.
    assert parse("--gloss=.1", "--paint=thick").paint == changed
    assert PAINTS["thick"].gloss == 0.5  # the preset itself stays


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("colur", "colur: no such setting; do you mean colour?"),
        ("speed", "speed: no such setting; do you mean top_speed?"),
        ("xyz", "xyz: no such setting"),
        ("doors", "doors: no such setting"),
        ("given", "given: no such setting"),
    ],
)
def test_an_unknown_name_is_told_with_the_nearest(name, expected):
    assert message(**{name: 1}).startswith(expected)


def test_messages_of_a_command_line_name_the_flag():
    with pytest.raises(UserError, match="^--colour=green: expected one of"):
        build(Car, {"colour": "green"}, "--")
    with pytest.raises(UserError, match="^--colur: .* do you mean --colour"):
        build(Car, {"colur": "red"}, "--")
    with pytest.raises(UserError, match="^--size=1,2,3: expected a list"):
        parse("--size=1,2,3")
    with pytest.raises(UserError, match="^--tones=.5,2: expected a list"):
        parse("--tones=.5,2")


def test_flags_and_keywords_build_the_same():
    by_flags = parse(
        "--top_speed=3",
        "--open_top",
        "--tags=a,b",
        "--size=3,4",
        "--owner=Ada",
        "--layers=1",
    )
    by_keywords = car(
        top_speed=3,
        open_top=True,
        tags=("a", "b"),
        size=(3, 4),
        owner="Ada",
        layers=1,
    )
    assert by_flags == by_keywords  # with what was given


@pytest.mark.parametrize(
    ("argument", "text"),
    [
        ("--colour=green", "colour"),
        ("--count=2", "count"),
        ("--top_speed=-1", "top_speed"),
        ("--colur=red", "colur"),
        ("--top_speed=nan", "--top_speed=nan: expected a number"),
        ("--tags=a,,b", "--tags=a,,b: expected words separated by commas"),
    ],
)
def test_a_command_ends_with_one_line(argument, text, capsys):
    def main(_):
        raise AssertionError("not to be reached")

    with pytest.raises(SystemExit) as exit_:
        command.run(main, Car, "", ["program", argument])
    error = capsys.readouterr().err
    assert exit_.value.code == 1
    assert error.startswith("error: ") and error.count("\n") == 1
    assert text in error


def test_help_is_grouped_by_section_in_order():
    values = flags.FlagValues()
    define(Car, values)
    text = help_of(values)
    headings = [line for line in text.splitlines() if line and line[0] != " "]
    assert headings == ["car:", "paint:", "wheels:"]
    _, of_car, rest = text.partition("car:")
    of_car, _, of_paint = rest.partition("paint:")
    of_paint, _, of_wheels = of_paint.partition("wheels:")
    lines = " ".join(of_car.split()).removeprefix("--").split(" --")
    assert lines == [
        "name: Name of the car. (default: 'car')",
        "colour: Colour of the car. One of red, blue. (default: 'red')",
        "owner: Name of the owner [none].",
        "top_speed: Speed. (default: '1.5'; a non-negative number)",
        "[no]open_top: Build a cabriolet. (default: 'false')",
        "tags: Tags. (default: ''; a comma separated list)",
    ]
    assert "--paint: Named paint. One of plain, thick." in of_paint
    # A field of a preset has no default of its own.
    words = " ".join(of_paint.split())
    assert "--gloss: Share of gloss. [as --paint says]" in words
    assert "--count: Number of wheels." in of_wheels


def test_required_settings():
    require(Car(owner="Ada"), "owner", "name")
    with pytest.raises(UserError, match="^--owner is missing: Name of the own"):
        require(Car(), "name", "owner")
    with pytest.raises(UserError, match="^--top_speed is missing: Speed"):
        require(Car(speed=0.0), "speed")


def test_choices_of_a_setting():
    assert choices(Car, "colour") == ("red", "blue")
    check_choice(Car, "colour", "blue")
    with pytest.raises(
        ValueError, match="^colour must be one of red, blue; received 'green'$"
    ):
        check_choice(Car, "colour", "green")


COMMANDS = [TrainOptions, EvalOptions, ExportOptions]
EVERY = [
    pytest.param(cls, field, id=f"{cls.__name__}-{field.flag}")
    for cls in [*COMMANDS, DetectionParams, EvalParams]
    for field in all_fields(cls)
]


@pytest.mark.parametrize("cls", COMMANDS)
def test_every_flag_of_a_command_stands_once(cls):
    names = [field.flag for field in all_fields(cls)]
    assert len(names) == len({*names}) > 10


@pytest.mark.parametrize(("cls", "field"), EVERY)
def test_help_is_a_whole_sentence(cls, field):
    text = field.setting.help
    assert text.endswith(".") and text == " ".join(text.split())
    # A metric's file name may begin a sentence.
    assert text[0].isupper() or text.startswith("metrics.json ")
    assert len(text.split()) > 1
    assert field.setting.section


@pytest.mark.parametrize(("cls", "field"), EVERY)
def test_defaults_pass_their_own_checks(cls, field):
    if field.setting.presets:
        assert field.default in field.setting.presets.values()
    else:
        assert converted(field, field.default, field.flag) == field.default


@pytest.mark.parametrize("cls", COMMANDS)
def test_defaults_of_flags_are_those_of_the_dataclass(cls):
    assert parse(cls=cls) == cls() == build(cls, {})


@pytest.mark.parametrize("cls", COMMANDS)
def test_every_default_given_as_a_flag_is_the_default(cls):
    arguments = []
    for field in all_fields(cls):
        default = field.default
        if default is None or field.setting.presets:
            continue
        if isinstance(default, tuple):
            default = ",".join(map(str, default))
        arguments.append(f"--{field.flag}={default}")
    parsed = dataclasses.replace(parse(*arguments, cls=cls), given=frozenset())
    assert parsed == cls()


def test_fields_are_not_those_of_nested_dataclasses():
    names = [field.name for field in fields(Car)]
    assert names == "name colour owner speed open_top tags paint".split()
    flat = [field.flag for field in all_fields(Car)]
    assert flat[3:7] == ["top_speed", "open_top", "tags", "paint"]
    assert flat[7:] == ["gloss", "layers", "tones", "count", "size"]

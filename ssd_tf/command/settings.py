"""Settings: each is one dataclass field that holds everything known of it.

`setting(default, help, ...)` makes such a field. Flags, `--help`, keyword
arguments, `config.json` and the checks of values all come from it. A dataclass
may hold other dataclasses of settings; their names are flat: each stands once.

  @dataclasses.dataclass(frozen=True)
  class Options:
      score: float = setting(0.5, "Lowest score.", "detection", low=0, high=1)

  build(Options, {"score": 0.3}) == Options(score=0.3)
"""

import dataclasses
import difflib
import math
import os
import types
import typing
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple, TypeVar

from ssd_tf.command.errors import UserError

Options = TypeVar("Options")
_KEY = "setting"
_NOUNS = {bool: "True or False", int: "a whole number", float: "a number"}
_NOUNS |= {str: "text"}


class Setting(NamedTuple):
    """Everything known of a setting but its name, type and default."""

    help: str  # a whole sentence
    section: str  # heading in `--help`
    low: float | None = None  # least value, of each element of a tuple
    high: float | None = None  # largest value
    choices: tuple[str, ...] = ()  # all valid values, where they can be listed
    flag: str | None = None  # name on the command line and as a keyword
    # Normalises a value of the right type.
    convert: Callable[[Any], Any] | None = None
    # Further condition of a valid value, and words for all conditions.
    is_valid: Callable[[Any], Any] | None = None
    expected: str | None = None
    # Named values of a field that is itself a dataclass of settings: the flag
    # names one, and the flags of its fields change single values.
    presets: Mapping[str, Any] | None = None


def setting(
    default: Any,
    help: str,  # noqa: A002
    section: str,
    **details: Any,
) -> Any:
    """Makes a dataclass field that is a setting.

    Args:
      default: value of the field unless another is given.
      help: a whole sentence for `--help`.
      section: heading that the flag stands under in `--help`.
      **details: other fields of `Setting`.
    """
    entry = Setting(help, section, **details)
    return dataclasses.field(default=default, metadata={_KEY: entry})


class Field(NamedTuple):
    """A setting with its name, type and default."""

    name: str  # attribute of the dataclass
    flag: str  # name on the command line and as a keyword
    type: Any  # bool, int, float, str or a tuple type
    is_optional: bool  # may be None
    default: Any
    setting: Setting


def fields(cls: type) -> Iterator[Field]:
    """Yields the settings of a dataclass, without those of nested ones."""
    hints = typing.get_type_hints(cls)
    for field in dataclasses.fields(cls):
        if entry := field.metadata.get(_KEY):
            kind, is_optional = _without_none(hints[field.name])
            flag = entry.flag or field.name
            yield Field(
                field.name, flag, kind, is_optional, field.default, entry
            )


def nested(cls: type) -> Iterator[tuple[str, type]]:
    """Yields names and types of the fields that are dataclasses themselves."""
    for name, kind in typing.get_type_hints(cls).items():
        if dataclasses.is_dataclass(kind):
            yield name, kind


def all_fields(cls: type) -> Iterator[Field]:
    """Yields the settings of a dataclass and of all nested ones."""
    yield from fields(cls)
    for _, kind in nested(cls):
        yield from all_fields(kind)


def require(options: Any, *names: str) -> None:
    """Checks that settings of a command line have a value.

    Raises:
      UserError: a setting is missing.
    """
    known = {field.name: field for field in fields(type(options))}
    for name in names:
        if not getattr(options, name):
            field = known[name]
            raise UserError(f"--{field.flag} is missing: {field.setting.help}")


def choices(cls: type, name: str) -> tuple[str, ...]:
    """Returns all valid values of a setting."""
    (entry,) = (x.setting for x in fields(cls) if x.name == name)
    return entry.choices


def check_choice(cls: type, name: str, value: str) -> None:
    """Checks a value against the choices of a setting.

    Raises:
      ValueError: naming the setting, its choices and the value.
    """
    known = choices(cls, name)
    if value not in known:
        raise ValueError(
            f"{name} must be one of {', '.join(known)}; received {value!r}"
        )


def build(
    cls: type[Options], values: Mapping[str, Any], prefix: str = ""
) -> Options:
    """Builds a dataclass of settings from flat names; the rest are defaults.

    A field `given` of the dataclass receives the names of `values`.

    Args:
      cls: dataclass of settings.
      values: values by flag name; the value of a nested dataclass's field may
        be such a dataclass.
      prefix: prefix of names in messages, such as "--".

    Raises:
      UserError: a name is unknown, or a value is invalid.
    """
    known = {field.flag for field in all_fields(cls)}
    known |= {name for name, _ in nested(cls)}
    for name in values:
        if name not in known:
            close = difflib.get_close_matches(name, known, 1)
            hint = f"; do you mean {prefix}{close[0]}?" if close else ""
            raise UserError(f"{prefix}{name}: no such setting{hint}")
    return _build(cls, values, prefix)


def _build(cls, values, prefix, base=None):
    """Builds `cls`; settings missing from `values` are those of `base`."""
    parts = dict(nested(cls))
    own = {field.name: field for field in fields(cls)}
    result = {
        name: converted(field, values[field.flag], prefix + field.flag)
        for name, field in own.items()
        if field.flag in values and name not in parts
    }
    for name, kind in parts.items():
        inner = getattr(base or cls, name, None)
        if name in values:
            inner = _part(own.get(name), kind, values[name], prefix + name)
        result[name] = _build(kind, values, prefix, inner)
    if "given" in {field.name for field in dataclasses.fields(cls)}:
        result["given"] = frozenset(values)
    return dataclasses.replace(base or cls(), **result)


def _part(field, kind, value, name):
    """Returns the nested dataclass that a value is, or names as a preset."""
    if isinstance(value, kind):
        return value
    presets = field.setting.presets if field else {}
    if not isinstance(value, str) or value not in presets:
        raise _invalid(name, value, " or ".join([*presets, kind.__name__]))
    return presets[value]


def converted(field: Field, value: Any, name: str) -> Any:
    """Returns a value as the field's type.

    Args:
      field: setting of the value.
      value: a keyword's or flag's value; numbers may be strings.
      name: name of the setting in messages.

    Raises:
      UserError: the value is invalid.
    """
    if value is None and field.is_optional:
        return None
    try:
        result = _as_type(field.type, value)
        if field.setting.convert:
            result = field.setting.convert(result)
    except (TypeError, ValueError, OverflowError):
        raise _invalid(name, value, describe(field)) from None
    if not _fits(field.setting, result):
        raise _invalid(name, value, describe(field))
    return result


def _as_type(kind, value):
    if typing.get_origin(kind) is tuple:
        items = value.split(",") if isinstance(value, str) else list(value)
        inner, *others = typing.get_args(kind)
        if Ellipsis not in others and len(items) != 1 + len(others):
            raise ValueError
        return tuple(_as_type(inner, item) for item in items)
    if kind is str:
        if isinstance(value, os.PathLike):
            return os.fspath(value)
        if not isinstance(value, str):
            raise TypeError
        return value
    if isinstance(value, bool) is not (kind is bool):
        raise TypeError
    result = kind(value)
    if kind is int and not isinstance(value, str) and result != value:
        raise ValueError
    return result


def _fits(entry: Setting, value: Any) -> bool:
    items = value if isinstance(value, tuple) else (value,)
    for item in items:
        if isinstance(item, float) and not math.isfinite(item):
            return False
        if entry.low is not None and item < entry.low:
            return False
        if entry.high is not None and item > entry.high:
            return False
        if entry.choices and item not in entry.choices:
            return False
    return entry.is_valid is None or entry.is_valid(value)


def describe(field: Field) -> str:
    """Returns a description of a valid value."""
    entry = field.setting
    if entry.expected:
        return entry.expected
    if entry.presets or entry.choices:
        return f"one of {', '.join(entry.presets or entry.choices)}"
    if typing.get_origin(field.type) is tuple:
        inner = typing.get_args(field.type)[0]
        return f"a list, each {_NOUNS[inner]}{_bounds(entry)}"
    return f"{_NOUNS[field.type]}{_bounds(entry)}"


def _bounds(entry):
    if entry.low is not None and entry.high is not None:
        return f" from {entry.low:g} to {entry.high:g}"
    if entry.low is not None:
        return f" of at least {entry.low:g}"
    return "" if entry.high is None else f" of at most {entry.high:g}"


def _invalid(name, value, expected):
    if isinstance(value, (list, tuple)):
        value = ",".join(map(str, value))
    return UserError(f"{name}={value}: expected {expected}")


def _without_none(kind):
    """Returns a type without None, and whether None was part of it."""
    if isinstance(kind, types.UnionType):
        (inner,) = (x for x in typing.get_args(kind) if x is not type(None))
        return inner, True
    return kind, False

"""Settings as command line flags: one flag per setting, grouped by section."""

import textwrap
import typing
from typing import Any, TypeVar

from absl import flags

from ssd_tf.command.settings import Field, all_fields, build, fields, nested

Options = TypeVar("Options")


def define(cls: type, flag_values: flags.FlagValues) -> None:
    """Defines the flags of a dataclass of settings and of its nested ones."""
    own = {field.name: field for field in fields(cls)}
    for field in own.values():
        _define_one(field, flag_values)
    for name, kind in nested(cls):
        preset = own.get(name)
        for field in all_fields(kind) if preset else ():
            text = f"{field.setting.help} [as --{preset.flag} says]"
            entry = field.setting._replace(help=text)
            unset = field._replace(default=None, setting=entry)
            _define_one(unset, flag_values)
        if not preset:
            define(kind, flag_values)


def _define_one(field: Field, flag_values: flags.FlagValues) -> None:
    maker, default, options = _maker(field)
    maker(
        field.flag,
        default,
        help=field.setting.help,
        flag_values=flag_values,
        module_name=field.setting.section,
        **options,
    )


def _maker(field: Field) -> tuple[Any, Any, dict[str, Any]]:
    """Returns what defines a field's flag, the default and the options."""
    entry, default = field.setting, field.default
    if typing.get_origin(field.type) is tuple:
        words = None if default is None else [f"{x}" for x in default]
        return flags.DEFINE_list, words, {}
    if entry.presets:
        names = {preset: name for name, preset in entry.presets.items()}
        options = {"enum_values": list(entry.presets)}
        return flags.DEFINE_enum, names[default], options
    if entry.choices:
        return flags.DEFINE_enum, default, {"enum_values": entry.choices}
    if field.type is bool:
        return flags.DEFINE_boolean, default, {}
    if field.type is str:
        return flags.DEFINE_string, default, {}
    bounds = {"lower_bound": entry.low, "upper_bound": entry.high}
    if field.type is int:
        return flags.DEFINE_integer, default, bounds
    return flags.DEFINE_float, default, bounds


def read(cls: type[Options], flag_values: flags.FlagValues) -> Options:
    """Builds the dataclass from the flags that the command line gives.

    Raises:
      UserError: a flag value is invalid.
    """
    given = {
        field.flag: flag_values[field.flag].value
        for field in all_fields(cls)
        if flag_values[field.flag].present
    }
    return build(cls, given, "--")


def help_of(flag_values: flags.FlagValues) -> str:
    """Returns the help of all flags, by section, in order of definition."""
    return "\n\n".join(
        "\n".join([f"{section}:", *map(_help_of_one, members)])
        for section, members in flag_values.flags_by_module_dict().items()
    )


def _help_of_one(flag: flags.Flag) -> str:
    name = f"--[no]{flag.name}" if flag.boolean else f"--{flag.name}"
    text = f"{name}: {flag.help}"
    if choices := getattr(flag.parser, "enum_values", None):
        # In place of absl's <a|b|c>, which does not wrap.
        text = text.replace(f"<{'|'.join(choices)}>: ", "", 1)
        text += f" One of {', '.join(choices)}."
    notes = [flag.parser.syntactic_help] if not flag.boolean else []
    if flag.default is not None:
        notes.insert(0, f"default: {flag.default_as_str}")
    if notes := "; ".join(filter(None, notes)):
        text += f" ({notes})"
    return textwrap.fill(
        text,
        width=80,
        initial_indent="  ",
        subsequent_indent="      ",
        break_long_words=False,
        break_on_hyphens=False,
    )

"""Weights of elsewhere into the net that is to be trained, and what fitted.

`ssd_tf.weights.start` reads them. Knows no files, and flags only to name a
remedy.
"""

import collections
import dataclasses
from collections.abc import Iterable, Mapping

import numpy as np

from ssd_tf.command import UserError, print_table, say
from ssd_tf.config.net import SSDParams
from ssd_tf.nets import scopes
from ssd_tf.nets.ssd import SSDNet
from ssd_tf.weights import matching
from ssd_tf.weights.class_rows import ClassRows, has_rows
from ssd_tf.weights.imported import Imported

# What the outputs of heads mean, beside the sizes of the anchors.
_OF_HEADS = (
    "feat_layers",
    "anchor_ratios",
    "anchor_steps",
    "anchor_offset",
    "prior_scaling",
)
_MISSING = "missing there"
# Names of either side in a message.
_SHOWN = 3


@dataclasses.dataclass(frozen=True)
class Start:
    """Weights to start from, as they were read."""

    source: str  # a path, for messages
    # By the names of `SSDNet.variables_by_name`.
    variables: Mapping[str, np.ndarray]
    # What they were trained with; None where the file does not tell.
    params: SSDParams | None = None
    # Where the classes are others than those that are wanted.
    rows: ClassRows | None = None
    class_names_known: bool = True  # else rows are kept by number
    excluded: tuple[str, ...] = ()  # scopes of `scopes.without_model`
    untrained: tuple[str, ...] = ()  # variables that were initial values
    detector: bool = True  # else a classifier, which is all trunk
    ignore_missing: bool = False

    @property
    def taken(self) -> dict[str, np.ndarray]:
        """The variables that are wanted."""
        return {
            name: array
            for name, array in self.variables.items()
            if name not in self.untrained
            and not scopes.under(name, self.excluded)
        }

    def heads(self, params: SSDParams) -> list[str]:
        """Those of the taken variables that are in the heads of a net."""
        ours = [f"{layer}_box" for layer in params.feat_layers]
        return [name for name in self.taken if scopes.under(name, ours)]


@dataclasses.dataclass(frozen=True)
class Report:
    """What a net started from."""

    source: str
    params: SSDParams  # of the net
    taken: tuple[str, ...]  # names of the net's variables
    fresh: dict[str, str]  # names of the others, and why
    # Of class predictors; None where none was taken, or as they were.
    rows: ClassRows | None
    rows_by_number: bool  # some were taken, of classes that nobody names


def apply(net: SSDNet, start: Start) -> Report:
    """Puts the weights into a net.

    Args:
      net: of the settings that came with the start; what the start does not
        have keeps its initial values.
      start: the weights.

    Raises:
      UserError: something is missing or of another shape, nothing at all is
        taken, the heads are of other anchors, or an excluded scope is nowhere.
    """
    ours, taken = net.variables_by_name(), start.taken
    scopes.check(
        "checkpoint_exclude_scopes",
        start.excluded,
        dict.fromkeys([*ours, *start.variables]),
    )
    if start.params and start.heads(net.params):
        _check_anchors(start.source, start.params, net.params)
    for name in taken:
        if start.rows and has_rows(name) and name in ours:
            taken[name] = start.rows.carried_over(
                taken[name], ours[name].numpy()
            )
    result = matching.assign(
        net, Imported(taken, net.params, detector=start.detector)
    )
    fresh = {
        name: _why_fresh(name, start, name in result.missing)
        for name in ours
        if name not in taken
    }
    _check_shapes(start.source, result.mismatched)
    if not result.matched:
        raise UserError(_why_nothing(start, net))
    if not start.ignore_missing:
        _check_missing(start.source, fresh)
    shows_rows = any(has_rows(name) for name in result.matched)
    return Report(
        start.source,
        net.params,
        result.matched,
        fresh,
        start.rows if shows_rows else None,
        shows_rows and not start.class_names_known,
    )


def _why_fresh(name: str, start: Start, expected: bool) -> str:
    if scopes.under(name, start.excluded):
        return "excluded"
    if name in start.untrained:
        return "not trained there"
    return _MISSING if expected else "not in a classifier"


def _why_nothing(start: Start, net: SSDNet) -> str:
    """One line on a start that has nothing for a net."""
    ours, theirs = net.variables_by_name(), start.variables
    remedy = (
        "choose a --model_name, a --checkpoint_model_scope and weights that "
        "go together"
    )
    if any(
        name in ours and scopes.under(name, start.excluded) for name in theirs
    ):
        remedy = "exclude less by --checkpoint_exclude_scopes"
    return (
        f"{start.source}: nothing would be taken of {_first(theirs)} for "
        f"{net.params.model_name}'s {_first(ours)}; {remedy}"
    )


def _first(names: Iterable[str]) -> str:
    first = [*names]
    if len(first) > _SHOWN:
        first[_SHOWN:] = ["..."]
    return ", ".join(first)


def _check_missing(source: str, fresh: dict[str, str]) -> None:
    missing = [name for name, why in fresh.items() if why == _MISSING]
    if missing:
        raise UserError(
            f"{source}: {missing[0]} is missing, one of {len(missing)}; add "
            "--ignore_missing_vars, or their --checkpoint_exclude_scopes"
        )


def _check_shapes(source, mismatched) -> None:
    if mismatched:
        name, ours, theirs = mismatched[0]
        parts = dict.fromkeys(
            name.rpartition("/")[0] for name, *_ in mismatched
        )
        raise UserError(
            f"{source}: {name} has the shape {theirs}, not {ours}; leave such "
            f"out by --checkpoint_exclude_scopes={','.join(parts)}"
        )


def _check_anchors(source: str, before: SSDParams, params: SSDParams) -> None:
    """Heads are of use with the anchors only that they were trained with.

    Anchors that keep their share of a resized input are the same ones.
    """
    names = [name for name in _OF_HEADS if _differ(name, before, params)]
    if not names and not np.allclose(*map(_relative_sizes, (before, params))):
        names = ["anchor_sizes"]
    if names:
        old, new = (
            f"{getattr(each, names[0])} at {each.img_shape[0]}x"
            f"{each.img_shape[1]} pixels"
            for each in (before, params)
        )
        raise UserError(
            f"{source}: its heads were trained with {names[0]} {old}, not "
            f"{new}; choose --model_name={before.model_name}, or leave them "
            "out by --checkpoint_exclude_scopes="
            + ",".join(f"{layer}_box" for layer in params.feat_layers)
        )


def _differ(name: str, before: SSDParams, params: SSDParams) -> bool:
    old, new = getattr(before, name), getattr(params, name)
    if name == "anchor_steps":
        # Without a value where no net was built, others with other inputs.
        same_input = before.img_shape == params.img_shape
        return bool(old and new and same_input) and old != new
    return old != new


def _relative_sizes(params: SSDParams) -> np.ndarray:
    """Sides as shares of the shorter side of the input."""
    return np.array(params.anchor_sizes) / min(params.img_shape)


def show(report: Report) -> None:
    """Prints which part of a net started from where."""
    rows: collections.Counter = collections.Counter()
    for name in report.taken:
        rows[_part(name, report.params), "loaded"] += 1
    for name, why in report.fresh.items():
        rows[_part(name, report.params), f"fresh: {why}"] += 1
    say(f"weights from {report.source}")
    print_table(
        "Parts of the net",
        ["part", "variables", "start"],
        [(part, number, how) for (part, how), number in rows.items()],
    )
    if report.rows:
        print_table(
            "Rows of the class predictors",
            ["class", "rows"],
            report.rows.table(),
        )
    if report.rows_by_number:
        say(
            f"class names of {report.source} are unknown; rows are kept by "
            "number"
        )


def _part(name: str, params: SSDParams) -> str:
    """What a variable is counted under: a trunk has many first components."""
    in_trunk = matching.in_trunk(name, params)
    return "trunk" if in_trunk else name.split("/", 1)[0]

"""Transfer of weights into the net that is to be trained.

`ssd_tf.weights.start` reads the weights. Class predictors keep the rows of
the classes that both class lists name. Independent of files; messages name
remedies as flags of train_ssd.py.
"""

import collections
import dataclasses
import re
from collections.abc import Iterable

import numpy as np

from ssd_tf.command import UserError, print_table, say
from ssd_tf.config.net import SSDParams
from ssd_tf.nets import scopes
from ssd_tf.nets.ssd import SSDNet
from ssd_tf.weights import base
from ssd_tf.weights.base import Imported, Report

# Plain heads, and separable ones, whose depthwise part has no classes.
_HAS_ROWS = re.compile(r"[^/]+_box/conv_cls/(pointwise/)?(weights|biases)")
_MISSING = "missing there"
_SHOWN = 3  # names of either side in a message


def has_rows(name: str) -> bool:
    """Returns True if a variable's last axis is anchors times classes.

    Args:
      name: name in `SSDNet.variables_by_name`.
    """
    return bool(_HAS_ROWS.fullmatch(name))


@dataclasses.dataclass(frozen=True)
class ClassRows:
    """Mapping of a class predictor's rows between two lists of classes.

    A row computes one class of one anchor. Channels are anchor-major, see
    `ssd_multibox_layer`: `[a, C]` with the background as class 0.
    """

    before: tuple[str, ...]  # class names without the background
    after: tuple[str, ...]

    def carried_over(self, source: np.ndarray, fresh: np.ndarray) -> np.ndarray:
        """Returns the fresh array with the rows of classes in both lists.

        Args:
          source: `[..., a * len(before with background)]`.
          fresh: `[..., a * len(after with background)]`, initial values.

        Returns:
          An array like `fresh`; `source` itself if that has other anchors or
          inputs and so cannot be carried over.
        """
        anchors = fresh.shape[-1] // (1 + len(self.after))
        expected = (*fresh.shape[:-1], anchors * (1 + len(self.before)))
        if source.shape != expected:
            return source
        both = [name for name in self.after if name in self.before]
        old = [0, *(1 + self.before.index(name) for name in both)]
        new = [0, *(1 + self.after.index(name) for name in both)]
        source = source.reshape(*source.shape[:-1], anchors, -1)
        result = fresh.reshape(*fresh.shape[:-1], anchors, -1).copy()
        result[..., new] = source[..., old]
        return result.reshape(fresh.shape)

    def table(self) -> list[tuple[str, str]]:
        """Returns every class of either list with the fate of its rows."""
        fates = [("background", "kept")]
        fates += [
            (name, "kept" if name in self.before else "fresh")
            for name in self.after
        ]
        gone = [name for name in self.before if name not in self.after]
        return fates + [(name, "dropped") for name in gone]


@dataclasses.dataclass(frozen=True)
class Start:
    """Weights to start from, as they were read."""

    source: str  # a path, for messages
    # With the settings of their training, where the file tells them.
    weights: Imported
    # Set if the class list of the weights differs from the requested one.
    rows: ClassRows | None = None
    excluded: tuple[str, ...] = ()  # scopes of `scopes.without_model`
    untrained: tuple[str, ...] = ()  # variables that have initial values
    ignore_missing: bool = False

    @property
    def taken(self) -> dict[str, np.ndarray]:
        """Variables that are neither excluded nor untrained."""
        return {
            name: array
            for name, array in self.weights.variables.items()
            if name not in self.untrained
            and not scopes.under(name, self.excluded)
        }

    def has_heads(self, params: SSDParams) -> bool:
        """Returns True if variables of a net's heads are taken."""
        heads = [f"{layer}_box" for layer in params.feat_layers]
        return any(scopes.under(name, heads) for name in self.taken)


def apply(net: SSDNet, start: Start) -> Report:
    """Assigns the weights to a net.

    Args:
      net: net of the settings that came with the start; variables that the
        start lacks keep their initial values.
      start: the weights.

    Returns:
      The match; see `reasons` for the variables without weights.

    Raises:
      UserError: a variable is missing or of another shape, nothing at all is
        taken, the heads are of other anchors, or an excluded scope is empty.
    """
    ours, taken = net.variables_by_name(), start.taken
    scopes.check(
        "checkpoint_exclude_scopes",
        start.excluded,
        dict.fromkeys([*ours, *start.weights.variables]),
    )
    # Heads are of use with the anchors only that they were trained with.
    if start.has_heads(net.params):
        _check_anchors(start.source, start.weights.params, net.params)
    # Class predictors get the rows of their classes.
    for name in taken:
        if start.rows and has_rows(name) and name in ours:
            taken[name] = start.rows.carried_over(
                taken[name], ours[name].numpy()
            )
    # Everything else is taken as it is, and must fit.
    weights = dataclasses.replace(start.weights, variables=taken)
    report = base.assign(net, weights)
    _check_shapes(start.source, report.mismatched)
    if not report.matched:
        raise UserError(_why_nothing(start, net))
    missing = [
        n for n, why in reasons(start, report).items() if why == _MISSING
    ]
    if missing and not start.ignore_missing:
        raise UserError(
            f"{start.source}: {missing[0]} is missing, one of {len(missing)}; "
            "add --ignore_missing_vars, or their --checkpoint_exclude_scopes"
        )
    return report


def reasons(start: Start, report: Report) -> dict[str, str]:
    """Returns why variables of the net have no weights, by name."""
    found = dict.fromkeys(report.missing, _MISSING)
    found |= dict.fromkeys(report.fresh, "not in a classifier")
    for name in found:
        if scopes.under(name, start.excluded):
            found[name] = "excluded"
        elif name in start.untrained:
            found[name] = "not trained there"
    return found


def _why_nothing(start: Start, net: SSDNet) -> str:
    """Returns one line on a start that has nothing for a net."""
    ours, theirs = net.variables_by_name(), start.weights.variables
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
    names = [*names]
    more = ["..."] if len(names) > _SHOWN else []
    return ", ".join(names[:_SHOWN] + more)


def _check_shapes(source: str, mismatched: tuple) -> None:
    """Raises UserError if any variable has another shape in the file."""
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
    """Raises UserError unless heads were trained with the net's anchors."""
    name = base.differing_anchors(before, params)
    if name:
        old, new = (
            f"{getattr(each, name)} at {each.img_shape[0]}x"
            f"{each.img_shape[1]} pixels"
            for each in (before, params)
        )
        raise UserError(
            f"{source}: its heads were trained with {name} {old}, not {new}; "
            f"choose --model_name={before.model_name}, or leave them out by "
            "--checkpoint_exclude_scopes="
            + ",".join(f"{layer}_box" for layer in params.feat_layers)
        )


def show(report: Report, start: Start, params: SSDParams) -> None:
    """Prints what each part of a net started from.

    Args:
      report: match from `apply`.
      start: the weights.
      params: settings of the net.
    """
    counts: collections.Counter = collections.Counter()
    fates = dict.fromkeys(report.matched, "loaded")
    fates |= {n: f"fresh: {why}" for n, why in reasons(start, report).items()}
    for name, fate in fates.items():
        # A trunk has many first components.
        in_trunk = base.in_trunk(name, params)
        counts["trunk" if in_trunk else name.split("/", 1)[0], fate] += 1
    say(f"weights from {start.source}")
    print_table(
        "Parts of the net",
        ["part", "variables", "start"],
        [(part, number, fate) for (part, fate), number in counts.items()],
    )
    if not any(has_rows(name) for name in report.matched):
        return
    if start.rows:
        print_table(
            "Rows of the class predictors",
            ["class", "rows"],
            start.rows.table(),
        )
    if start.weights.class_names is None:
        say(
            f"class names of {start.source} are unknown; rows are kept by "
            "number"
        )

"""Which anchors a .caffemodel was trained with: its PriorBox layers.

src/caffe/layers/prior_box_layer.cpp of weiliu89/caffe, branch ssd, says what
they mean.
"""

import dataclasses

import numpy as np

from ssd_tf.command import UserError
from ssd_tf.config.net import SSDParams
from ssd_tf.config.presets import PRESETS
from ssd_tf.weights import fitting
from ssd_tf.weights.imported import Tensors

# Caffe keeps sizes in float32, which moves 35.84 by 4e-8 of it.
_TOLERANCE = 1e-6


@dataclasses.dataclass(frozen=True)
class Anchors:
    """The anchors of one feature layer, as `SSDParams` has them."""

    sizes: tuple[float, ...]  # small and next side, pixels
    ratios: tuple[float, ...]
    variances: tuple[float, ...]
    step: tuple[float, float] | None  # y and x, pixels; None: not said
    offset: float
    clip: bool

    def same(
        self, sizes: tuple[float, float], ratios: tuple, params: SSDParams
    ) -> bool:
        """Whether a layer of `params` has these."""
        return (
            _close(self.sizes, sizes)
            and _close(self.ratios, ratios)
            and _close(self.variances, params.prior_scaling)
            and _close((self.offset,), (params.anchor_offset,))
            and not self.clip
        )


def sources(params: SSDParams) -> tuple[str, ...]:
    """Caffe's names of the layers with heads: block8 is conv6_2 there."""
    extras = range(6, 6 + len(params.extra_blocks))
    return ("conv4_3_norm", "fc7", *(f"conv{n}_2" for n in extras))


def take(tensors: Tensors, layers: tuple[str, ...]) -> tuple[Anchors, ...]:
    """The anchors that a file tells of; none if it has no PriorBox layers.

    Args:
      tensors: from `caffe.read`.
      layers: from `sources`, for their order; the file may have fewer, or
        more, as SSD512 has.
    """
    ending = "_mbox_priorbox/min_size"
    known = {n.removesuffix(ending) for n in tensors.arrays if ending in n}
    ordered = [layer for layer in layers if layer in known]
    ordered += sorted(known - set(layers))
    return tuple(_take_layer(tensors, layer) for layer in ordered)


def _take_layer(tensors: Tensors, layer: str) -> Anchors:
    prefix = f"{layer}_mbox_priorbox/"
    values = {
        name.removeprefix(prefix): tensors.take(name).tolist()
        for name in tensors.arrays
        if name.startswith(prefix)
    }
    # One variance is meant for all four; none is .1.
    variances = values.get("variance", [0.1])
    flip = values.get("flip", [True])[-1]
    return Anchors(
        sizes=(*values["min_size"], *values.get("max_size", [0.0])),
        ratios=_ratios(values.get("aspect_ratio", []), flip),
        variances=tuple(variances * (4 if len(variances) == 1 else 1)),
        step=_step(values),
        offset=values.get("offset", [0.5])[-1],
        clip=values.get("clip", [False])[-1],
    )


def _ratios(given: list[float], flip: bool) -> tuple[float, ...]:
    """Each ratio and its inverse, 1 and what is there already left out."""
    ratios = [1.0]
    for ratio in given:
        if not any(_close((ratio,), (known,)) for known in ratios):
            ratios += [ratio, 1.0 / ratio] if flip else [ratio]
    return tuple(ratios[1:])


def _step(values: dict[str, list[float]]) -> tuple[float, float] | None:
    step = values.get("step", [0.0])
    step_y = values.get("step_h", step)[-1]
    step_x = values.get("step_w", step)[-1]
    return (step_y, step_x) if step_y and step_x else None


def check(
    anchors: tuple[Anchors, ...], params: SSDParams
) -> tuple[tuple[float, float], ...]:
    """Refuses another net's anchors.

    Args:
      anchors: from `take`; empty where the file does not tell.
      params: what they should be those of, perhaps at another image size.

    Returns:
      `SSDParams.anchor_steps`: the file's at the size of the preset that has
      its anchors; none at other sizes, where they follow from the net.

    Raises:
      UserError: naming the preset that has them, if any does.
    """
    if not anchors:
        return params.anchor_steps
    presets = [
        preset
        for preset in PRESETS.values()
        if preset.trunk == params.trunk and _fits(anchors, preset)
    ]
    shape = params.img_shape
    if _fits(anchors, params) or any(
        fitting.same_anchors(preset, params) for preset in presets
    ):
        steps = _steps(anchors)
        return steps if shape in {p.img_shape for p in presets} else ()
    names = " or ".join(preset.model_name for preset in presets)
    raise UserError(
        f"the .caffemodel holds anchors of {names}, not of "
        f"{params.model_name}; say --model_name={names}"
        if presets
        else f"the .caffemodel holds anchors that neither {params.model_name} "
        f"nor another preset has ({_describe(anchors)}); add one with them to "
        "ssd_tf/config/presets.py"
    )


def _steps(anchors: tuple[Anchors, ...]) -> tuple[tuple[float, float], ...]:
    steps = tuple(layer.step for layer in anchors)
    if None in steps:
        # Caffe then takes image over cells, 7.89 where others have 8.
        raise UserError(
            "the .caffemodel's PriorBox layers have no step, so its anchors "
            "are no preset's; train it on with ssd_pascal.py's steps first"
        )
    return steps


def _fits(anchors: tuple[Anchors, ...], params: SSDParams) -> bool:
    layers = zip(params.anchor_sizes, params.anchor_ratios, strict=True)
    return len(anchors) == len(params.feat_layers) and all(
        ours.same(sizes, ratios, params)
        for ours, (sizes, ratios) in zip(anchors, layers, strict=True)
    )


def _describe(anchors: tuple[Anchors, ...]) -> str:
    layers = [
        "-".join(f"{size:g}" for size in layer.sizes)
        + " ("
        + " ".join(f"{ratio:.3g}" for ratio in layer.ratios)
        + ")"
        for layer in anchors
    ]
    variances = " ".join(f"{value:g}" for value in anchors[0].variances)
    clipped = ", clipped" if any(layer.clip for layer in anchors) else ""
    return (
        f"sizes and ratios {', '.join(layers)}, variances {variances}, offset "
        f"{anchors[0].offset:g}{clipped}"
    )


def _close(ours, theirs) -> bool:
    return len(ours) == len(theirs) and np.allclose(
        ours, theirs, rtol=_TOLERANCE, atol=0
    )

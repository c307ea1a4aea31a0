"""Which presets the weights of a file could be for."""

from ssd_tf.config.net import SSDParams
from ssd_tf.config.presets import PRESETS, resized


def untold(params: SSDParams) -> str:
    """What is assumed of a file that does not tell its anchors.

    Args:
      params: whose anchors are taken.

    Returns:
      A sentence for `Imported.assumed`, with the presets that would fit too.
    """
    name = params.model_name
    others = [n for n in with_layers_of(params) if n != name]
    return f"the file does not tell its anchors: taken as those of {name}" + (
        f", not of {' or '.join(others)}, with the same layers"
        if others
        else ""
    )


def with_layers_of(params: SSDParams) -> list[str]:
    """Names of the presets whose variables have the same names and shapes."""
    return [n for n, preset in PRESETS.items() if same_layers(preset, params)]


def same_layers(one: SSDParams, other: SSDParams) -> bool:
    """Whether a file of one fills the other, whatever their anchors are."""
    fields = ("trunk", "feat_layers", "extra_blocks", "anchors_per_cell")
    return all(getattr(one, name) == getattr(other, name) for name in fields)


def same_anchors(preset: SSDParams, params: SSDParams) -> bool:
    """Whether the heads of a preset fit `params`, at the size of its input."""
    preset = resized(preset, params.img_shape)
    fields = ("trunk", "feat_layers", "anchor_sizes", "anchor_ratios")
    fields += ("anchor_offset", "prior_scaling")
    return all(
        getattr(preset, name) == getattr(params, name) for name in fields
    )

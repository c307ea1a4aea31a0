"""Parts of a net by scope, as the port's flags name them.

A scope is the beginning of variables' names in whole components: `block1` is
not the beginning of `block10/conv1x1/weights`. The model's own scope may
stand in front, as in `ssd_300_vgg/conv6`.
"""

from collections.abc import Iterable, Sequence

from ssd_tf.command import UserError
from ssd_tf.nets.layers import variable_name
from ssd_tf.nets.ssd import SSDNet

# Scopes that a message lists at most.
_SHOWN = 12


def without_model(
    scopes: Iterable[str], model_scopes: Iterable[str | None]
) -> tuple[str, ...]:
    """The scopes without the model's in front.

    Args:
      scopes: such as `ssd_300_vgg/conv6`.
      model_scopes: what may stand in front; None and "" are passed over.

    Returns:
      As many scopes, such as `conv6`; "", under which everything is, for the
      model's scope itself.
    """
    fronts = [f"{front.strip('/')}/" for front in model_scopes if front]
    result = []
    for scope in scopes:
        scope = f"{scope.strip('/')}/"
        found = [front for front in fronts if scope.startswith(front)]
        front = max(found, key=len, default="")
        result.append(scope.removeprefix(front).removesuffix("/"))
    return tuple(result)


def under(name: str, scopes: Iterable[str]) -> bool:
    """Whether a name is under one of the scopes of `without_model`."""
    return any(
        not scope or f"{name}/".startswith(f"{scope}/") for scope in scopes
    )


def check(flag: str, scopes: Sequence[str], names: Iterable[str]) -> None:
    """Refuses a scope under which there is nothing.

    Args:
      flag: where the scopes come from, for the message.
      scopes: of `without_model`.
      names: all that there are.

    Raises:
      UserError: naming the scope and some of the first components that there
        are.
    """
    names = list(names)
    for scope in scopes:
        if not any(under(name, [scope]) for name in names):
            known = [*dict.fromkeys(name.split("/", 1)[0] for name in names)]
            if len(known) > _SHOWN:
                known[_SHOWN:] = ["..."]
            raise UserError(
                f"--{flag}: nothing is under {scope!r}; scopes are "
                + ", ".join(known)
            )


def freeze_others(net: SSDNet, trainable: Sequence[str]) -> None:
    """Only the layers under some scopes are trained from now on.

    A layer is trained or frozen as a whole: a variable's name stands for all
    of its layer.

    Batch norm that is not trained runs on its moving statistics and leaves
    them alone, which Keras sees to.

    Args:
      net: whose optimizer is not built yet.
      trainable: scopes, with or without the model's; all layers if empty.

    Raises:
      UserError: there is no variable under a scope.
    """
    if not trainable:
        return
    wanted = without_model(trainable, [net.params.model_name, net.model_scope])
    check("trainable_scopes", wanted, net.variables_by_name())
    for layer in net.model.layers:
        names = map(variable_name, layer.weights)
        layer.trainable = any(under(name, wanted) for name in names)

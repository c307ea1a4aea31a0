"""Parts of a net by scope, as the port's flags name them.

A scope is a prefix of variable names on component boundaries: `block1` is not
a prefix of `block10/conv1x1/weights`. It may begin with the model's own scope,
as in `ssd_300_vgg/conv6`.
"""

from collections.abc import Iterable, Sequence

from ssd_tf.command import UserError
from ssd_tf.nets.layers import variable_name
from ssd_tf.nets.ssd import SSDNet

# Largest number of scopes that a message lists.
_SHOWN = 12


def without_model(
    scopes: Iterable[str], model_scopes: Iterable[str | None]
) -> tuple[str, ...]:
    """Removes the model's own scope from the beginning of scopes.

    Args:
      scopes: scopes such as `ssd_300_vgg/conv6`.
      model_scopes: possible scopes of the model; None and "" are skipped.

    Returns:
      As many scopes, such as `conv6`; for the model's scope itself "", under
      which all variables are.
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
    """Returns True if a name is under one of the scopes of `without_model`."""
    return any(
        not scope or f"{name}/".startswith(f"{scope}/") for scope in scopes
    )


def check(flag: str, scopes: Sequence[str], names: Iterable[str]) -> None:
    """Checks that there is a variable under every scope.

    Args:
      flag: name of the flag that gives the scopes, for the message.
      scopes: scopes that `without_model` returned.
      names: names of all variables.

    Raises:
      UserError: nothing is under a scope; the message lists scopes.
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
    """Freezes all layers but those under some scopes.

    A layer is frozen as a whole: it stays trainable if one of its variables
    is under a scope. Keras runs frozen batch norm on its moving statistics,
    and does not update them.

    Args:
      net: net for which no optimizer has been built yet.
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

"""Removals of an explanation: checks of their names, and the defaults of a network."""

from collections.abc import Sequence
from typing import Any

from lmjax import removals
from lmjax.models import external, registry

# By where masks travel in the network. A function that is no network in JAX has "input".
_DEFAULTS = {
    "layers": ("layer", "grey", "black"),
    "tokens": ("token_dropping", "grey", "black"),
    "input": ("grey", "black"),
}


def check_removals(chosen: Sequence[str]) -> tuple[str, ...]:
    """Returns the names as records spell them, each once.

    Raises:
      ValueError: no name, or one that is unknown.
    """
    if not chosen:
        raise ValueError(f"removal must be one or more of {', '.join(removals.names())}; got none")
    return tuple(dict.fromkeys(map(removals.canonical, chosen)))


def removals_for(chosen: tuple[str, ...] | None, model: Any) -> tuple[str, ...]:
    """Returns the names, by default the network's own removal, grey and black.

    Args:
      chosen: checked names, or None.
      model: a network's name or a classifier.

    Raises:
      ValueError: a removal inside the network that is for another kind of network.
    """
    if isinstance(model, str) and external.is_external(model):
        model = None  # its masks go through layers
    elif isinstance(model, str):
        model = registry.network(model).build()
    masking = getattr(model, "masking", None)
    if chosen is None:
        return _DEFAULTS[getattr(model, "where", getattr(masking, "where", "layers"))]
    if masking is not None:
        for name in chosen:
            removals.check_fits(name, masking)
    return chosen

"""Removals of an explanation: checks of their names, and the defaults of a network."""

from lmjax.models import registry
from lmjax.removals import TokenDropping, by_name
from lmjax.removals.masking import check_masking

OWN = {"layers": "layer", "tokens": "token_dropping"}
make = by_name.make


def check_removals(chosen: tuple[str, ...]) -> tuple[str, ...]:
    """Returns the names, each once; raises ValueError for none, and for one that is unknown."""
    if not chosen:
        raise ValueError(f"removal must be one or more of {', '.join(by_name.NAMES)}; got none")
    for name in chosen:
        by_name.check_name(name)
    return tuple(dict.fromkeys(chosen))


def removals_for(chosen: tuple[str, ...] | None, model) -> tuple[str, ...]:
    """Returns the names, by default the network's own removal, grey and black.

    Args:
      chosen: names, or None.
      model: a network's name or a classifier.

    Raises:
      ValueError: a removal inside the network that is for another kind of network.
    """
    own = OWN[_where(model)]
    if chosen is None:
        return own, "grey", "black"
    for name in chosen:
        if by_name.check_name(name)[0] in by_name.INSIDE_NETWORK:
            check_masking(by_name.make(name), by_name.make(own))
    return chosen


def _where(model) -> str:
    if isinstance(model, str):
        return "tokens" if registry.network(model).transformer else "layers"
    return "tokens" if isinstance(getattr(model, "masking", None), TokenDropping) else "layers"

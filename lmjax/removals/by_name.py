"""Removals by name, as commands and studies call them."""

import jax
import numpy as np

from lmjax.removals.masking import LayerMasking, PartialConvolution, TokenDropping
from lmjax.removals.replace import BASELINES, Replace

_THROUGH_LAYERS = {
    "layer": LayerMasking(),
    "no_padding": LayerMasking(padding="none"),
    "partial": PartialConvolution(),
}
INSIDE_NETWORK = {**_THROUGH_LAYERS, "token_dropping": TokenDropping()}
"""Those inside the network, without a depth."""

OWN = "masking"
"""Each network's own: of convolutional networks layer masking, of transformers token dropping."""

_COLOURS = {"red": (1.0, 0.0, 0.0), "green": (0.0, 1.0, 0.0), "blue": (0.0, 0.0, 1.0)}
NAMES = (*INSIDE_NETWORK, OWN, *BASELINES, *_COLOURS)
"""All names. The first three may go on with a depth: `"layer@2"` is `LayerMasking(depth=2)`."""

PAINTS = (*BASELINES, *_COLOURS)
"""Those that paint a baseline, and so can blend it with the image."""

_TITLES = {
    "layer": "layer masking",
    "no_padding": "masking without padding",
    "partial": "partial convolution",
    OWN: "own masking",
}


def make(name: str, *, key: jax.Array | None = None, segments: np.ndarray | None = None):
    """A removal by its name.

    Args:
      name: one of `NAMES`; the first three also with a depth, `"layer@2"`.
      key: of the baselines that draw noise.
      segments: `[H, W]` ints, of `"segment_mean"`.

    Returns:
      What `lmjax.Predictor` takes; None, which is the classifier's own masking, for `"masking"`.

    Raises:
      ValueError: another name, or what the removal itself refuses.
    """
    base, depth = check_name(name)
    if base == OWN:
        return None
    if base in INSIDE_NETWORK:
        removal = INSIDE_NETWORK[base]
        if depth is None:
            return removal
        options = {} if base == "partial" else {"padding": removal.padding}
        return type(removal)(depth=depth, **options)
    return Replace(_COLOURS.get(base, base), key=key, segments=segments)


def check_name(name: str, argument: str = "removal") -> tuple[str, int | None]:
    """The name without its depth, and the depth; raises ValueError for a name that is none."""
    base, at, depth = str(name).partition("@")
    if base not in NAMES or (at and (base not in _THROUGH_LAYERS or not depth.isdecimal())):
        raise ValueError(
            f"{argument} must be one of {', '.join(NAMES)}, or with a depth one of "
            f"{', '.join(f'{each}@2' for each in _THROUGH_LAYERS)}; got {name!r}"
        )
    return base, int(depth) if at else None


def title(name: str) -> str:
    """A removal's name as figures and tables show it."""
    base, _, depth = name.partition("@")
    shown = _TITLES.get(base, base.replace("_", " "))
    return f"{shown}, depth {depth}" if depth else shown

"""The pair that every masked layer takes and gives."""

from typing import NamedTuple

import jax


class Masked(NamedTuple):
    """Activations and the mask that travels with them.

    Attributes:
      x: activations `[..., H, W, C]`, channels last. Exactly 0 wherever the mask is 0.
      mask: `[..., H, W]` bool, True = visible, with the leading dimensions of `x`. None means that
        nothing is masked (the plain network): the layers then do no masking work at all.
    """

    x: jax.Array
    mask: jax.Array | None = None

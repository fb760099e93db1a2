"""Removals that work inside the network: the mask goes through the layers beside the activations.

A *removal* says how hidden features are withheld. It is a frozen, hashable object with one method,
`logits(classifier, image, masks)`, which `lmjax.Predictor` calls. Removals that paint something in
the place of hidden pixels live in `lmjax.removals.replace`.
"""

from dataclasses import dataclass
from numbers import Integral
from typing import Literal

import jax
import jax.numpy as jnp


def _check_depth(depth: int | None) -> None:
    if depth is not None and (
        isinstance(depth, bool) or not isinstance(depth, Integral) or depth < 0
    ):
        raise ValueError(
            f"depth must be None (mask all the way) or the number of blocks to mask, 0 or more; "
            f"got {depth!r}"
        )


class _InsideNetwork:
    """What the removals of this file share: the masks go into the network."""

    def logits(self, classifier, image: jax.Array, masks: jax.Array) -> jax.Array:
        """Answers of `classifier` to the variants of one image.

        Args:
          classifier: has `normalise(images)` and `apply(images, masks, masking=...)`.
          image: `[H, W, C]` in [0, 1], display colours. Hidden pixels are never read.
          masks: `[N, H, W]`, 1 = visible.

        Returns:
          Logits `[N, K]`.
        """
        images = _variants(classifier, image, masks)
        return classifier.apply(images, masks, masking=self)


class _ThroughLayers(_InsideNetwork):
    """What the removals of convolutional networks share: masks travel through the layers."""

    def logits_on_visible(self, classifier, image: jax.Array, masks: jax.Array, ledger):
        """The same answers, computed on visible positions only; see `lmjax.masking.sparse.rows`."""
        images = _variants(classifier, image, masks)
        return classifier.apply_on_visible(images, masks, ledger, masking=self)


def _variants(classifier, image: jax.Array, masks: jax.Array) -> jax.Array:
    image = classifier.normalise(image)
    return jnp.broadcast_to(image, (*masks.shape[:1], *image.shape[-3:]))


@dataclass(frozen=True)
class LayerMasking(_ThroughLayers):
    """Layer masking (Balasubramanian & Feizi, arXiv 2211.14646, section 3).

    Every layer computes with visible positions only, and passes on which of its outputs are known.

    Attributes:
      padding: what a convolution sees just outside the visible region. `"neighbor"` (default, the
        paper's) fills hidden positions ring by ring with the mean of their known neighbours;
        `"none"` leaves zeros there (the paper's ablation "masking only").
      depth: mask through the stem and the first `depth` blocks, then go on with plain layers (the
        activations, zeros included, as they stand). 0 masks the stem only. None (default) masks
        all the way. What the blocks are says the network: residual blocks in a ResNet.

    Raises:
      ValueError: for another `padding`, or a negative `depth`.
    """

    padding: Literal["neighbor", "none"] = "neighbor"
    depth: int | None = None

    def __post_init__(self):
        if self.padding not in ("neighbor", "none"):
            raise ValueError(f"padding must be 'neighbor' or 'none', got {self.padding!r}")
        _check_depth(self.depth)


@dataclass(frozen=True)
class PartialConvolution(_ThroughLayers):
    """Partial convolution (Liu et al. 2018, arXiv 1804.07723, equation 1) in every convolution.

    No neighbor padding: the sum over the visible positions of a window is scaled up by window size
    over visible count. Positions outside the image count as hidden. Everything else is as in
    `LayerMasking`.

    Attributes:
      depth: as in `LayerMasking`.
    """

    depth: int | None = None
    padding = "partial"

    def __post_init__(self):
        _check_depth(self.depth)


@dataclass(frozen=True)
class TokenDropping(_InsideNetwork):
    """Token dropping, for vision transformers (Jain et al. 2022, arXiv 2204.08945).

    A token is kept only when all of its patch is visible. Dropped tokens take no part in attention,
    so the network answers as if it were run on the kept tokens alone. The class token is always
    kept; with nothing visible it is alone.
    """


Masking = LayerMasking | PartialConvolution | TokenDropping


def check_masking(masking, own: Masking) -> None:
    """Raises ValueError unless `masking` fits a network whose own masking is `own`."""
    if isinstance(own, TokenDropping):
        kind, fits = "transformer", (TokenDropping,)
    else:
        kind, fits = "convolutional network", (LayerMasking, PartialConvolution)
    if not isinstance(masking, fits):
        names = " or ".join(f"lmjax.{each.__name__}()" for each in fits)
        raise ValueError(
            f"masking must be {names} in a {kind}, got {masking!r}; a removal that paints goes to "
            "lmjax.Predictor(classifier, removal)"
        )

"""Removals inside the network: masks travel through the layers beside the activations."""

from dataclasses import dataclass
from typing import Any, Literal

import jax
import jax.numpy as jnp

from lmjax._utils.checks import check_choice, set_whole
from lmjax._utils.summary import brief
from lmjax.removals.removal import Removal, declared


class _InsideNetwork(Removal):
    """The part that removals inside the network share."""

    def logits(self, classifier: Any, image: jax.Array, masks: jax.Array) -> jax.Array:
        """Returns the logits `[N, K]` of variants.

        Args:
          classifier: has `normalise(images)` and `apply(images, masks, masking=...)`.
          image: `[H, W, C]` in [0, 1], display colours; or `[N, H, W, C]`, one for each variant.
            Hidden pixels are never read.
          masks: `[N, H, W]`, 1 = visible.
        """
        images = _variants(classifier, image, masks)
        return classifier.apply(images, masks, masking=self)


class _ThroughLayers(_InsideNetwork):
    """The part that removals of convolutional networks share: masks go through the layers."""

    where = "layers"
    sparse = True

    def logits_on_visible(
        self, classifier: Any, image: jax.Array, masks: jax.Array, layout: Any
    ) -> jax.Array:
        """Returns the same logits, computed on visible positions only.

        Args:
          classifier: has `normalise` and `apply_on_visible(images, masks, layout, masking=...)`.
          image, masks: as in `logits`.
          layout: of rows; see `lmjax.masking.sparse.positions`.
        """
        images = _variants(classifier, image, masks)
        return classifier.apply_on_visible(images, masks, layout, masking=self)


def _variants(classifier: Any, image: jax.Array, masks: jax.Array) -> jax.Array:
    image = classifier.normalise(image)
    return jnp.broadcast_to(image, (*masks.shape[:1], *image.shape[-3:]))


@dataclass(frozen=True)
class LayerMasking(_ThroughLayers):
    """Layer masking (Balasubramanian & Feizi, arXiv 2211.14646, section 3).

    Every layer computes with visible positions only, and passes on which of its outputs are known.

    Example:
      >>> predictor = lmjax.Predictor(classifier, lmjax.LayerMasking())
      >>> lmjax.evaluate(predictor, np.where(masks[0][..., None], image, np.nan), masks[:1]).shape
      (1, 2)

    Attributes:
      padding: what a convolution sees just outside the visible region. `"neighbor"` (default, the
        paper's) fills hidden positions ring by ring with the mean of their known neighbours;
        `"none"` leaves zeros there (the paper's ablation "masking only").
      depth: mask through the stem and the first `depth` blocks, then go on with plain layers (the
        activations, zeros included, as they stand). 0 masks the stem only. None (default) masks
        all the way. The network defines its blocks: residual blocks in a ResNet. For a network of
        another framework (`lmjax.models.from_function`), the name of the module from which on it is
        plain.

    Raises:
      ValueError: for another `padding`, or a negative `depth`.
    """

    padding: Literal["neighbor", "none"] = "neighbor"
    depth: int | str | None = None

    def __post_init__(self):
        check_choice("padding", self.padding, ("neighbor", "none"))
        _check_depth(self)


@dataclass(frozen=True)
class PartialConvolution(_ThroughLayers):
    """Partial convolution (Liu et al. 2018, arXiv 1804.07723, equation 1) in every convolution.

    No neighbor padding: the sum over the visible positions of a window is scaled up by window size
    over visible count. Positions outside the image count as hidden. Everything else is as in
    `LayerMasking`.

    Example:
      >>> predictor = lmjax.Predictor(classifier, lmjax.PartialConvolution())
      >>> lmjax.evaluate(predictor, image, masks).shape
      (5, 2)

    Attributes:
      depth: as in `LayerMasking`.
    """

    depth: int | str | None = None
    padding = "partial"

    def __post_init__(self):
        _check_depth(self)


@dataclass(frozen=True)
class TokenDropping(_InsideNetwork):
    """Token dropping, for vision transformers (Jain et al. 2022, arXiv 2204.08945).

    A token is kept only when all of its patch is visible. Dropped tokens take no part in attention,
    so the network answers as if it were run on the kept tokens alone. The class token is always
    kept; with nothing visible it is alone.
    """

    where = "tokens"


Masking = LayerMasking | PartialConvolution | TokenDropping

# By where masks travel: the kind of network, and the removals that come with lmjax.
_FITTING = {
    "layers": ("convolutional network", "lmjax.LayerMasking() or lmjax.PartialConvolution()"),
    "tokens": ("transformer", "lmjax.TokenDropping()"),
}


def check_masking(masking: Any, own: Masking) -> None:
    """Raises ValueError unless `masking` fits a network whose own masking is `own`."""
    if getattr(own, "where", None) not in _FITTING:
        raise ValueError(
            f"own must be a network's masking, such as lmjax.LayerMasking(); got {brief(own)}"
        )
    if isinstance(masking, type) or declared(masking, "where") != own.where:
        kind, fitting = _FITTING[own.where]
        raise ValueError(
            f"masking must be {fitting} in a {kind}, got {brief(masking)}; a removal that paints "
            "goes to lmjax.Predictor(classifier, removal)"
        )


def _check_depth(removal: LayerMasking | PartialConvolution) -> None:
    depth = removal.depth
    if depth is not None and not (isinstance(depth, str) and depth):
        note = "the number of blocks to mask, or a module's name; None masks all the way"
        set_whole(removal, "depth", least=0, note=note)

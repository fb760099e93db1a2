"""Classifier: a network with its weights, its preprocessing and its class names, as one pytree."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from lmjax.masking.checks import check_mask
from lmjax.masking.masked import Masked
from lmjax.masking.removal import LayerMasking, PartialConvolution, check_masking
from lmjax.masking.visible import Capacities, Counting, Pixels
from lmjax.models.preprocess import Preprocessing


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class Classifier:
    """A network and all that is needed to use it.

    A pytree: `variables` are leaves, everything else is static. So a classifier passes through
    `jit` and `vmap` as an argument, and its weights never become constants of a compiled program.

    Attributes:
      variables: `{"params": ..., "batch_stats": ...}`, float32.
      module: the Flax module; its `masking` is the default of `apply`.
      preprocessing: from a photograph to the network's input.
      class_names: a name for each class, or None.
    """

    variables: dict[str, Any]
    module: nn.Module = dataclasses.field(metadata={"static": True})
    preprocessing: Preprocessing = dataclasses.field(metadata={"static": True})
    class_names: tuple[str, ...] | None = dataclasses.field(default=None, metadata={"static": True})

    @property
    def masking(self) -> LayerMasking | PartialConvolution:
        """How masks go through the network unless `apply` is told otherwise."""
        return self.module.masking

    def normalise(self, images: jax.Array) -> jax.Array:
        """Display colours `[..., H, W, C]` in [0, 1] to the network's input range."""
        return self.preprocessing.normalise(images)

    def apply(
        self,
        images: jax.Array,
        masks: jax.Array | None = None,
        *,
        masking: LayerMasking | PartialConvolution | None = None,
    ) -> jax.Array:
        """Logits of images, each under its mask.

        Args:
          images: `[N, H, W, C]`, normalised. Hidden pixels are never read.
          masks: `[N, H, W]`, 1 = visible, 0 = hidden, bool or numbers. None runs the plain network.
          masking: how to mask; None takes the classifier's own, which `lmjax.models.load` sets.

        Returns:
          Logits `[N, K]`, float32. Where nothing is visible they are the last layer's bias.

        Raises:
          ValueError: images of another shape or not floating point, masks of another shape, values
            other than 0 and 1, or a `masking` that does not go through layers.
        """
        images = self._check_images(images)
        if masks is not None:
            masks = check_mask(masks, images.shape[:3])
        return self._run(Masked(images, masks), masking)

    def apply_on_visible(
        self,
        images: jax.Array,
        masks: jax.Array,
        ledger: Counting | Capacities,
        *,
        masking: LayerMasking | PartialConvolution | None = None,
    ) -> jax.Array:
        """The same logits, computed on visible positions only.

        Args:
          images, masks, masking: as in `apply`; masks are required.
          ledger: room for rows, or their count; see `lmjax.masking.visible`.
        """
        images = self._check_images(images)
        masks = jnp.asarray(check_mask(masks, images.shape[:3]))
        return self._run(Pixels(images, masks, ledger), masking)

    def _run(self, inputs: Masked | Pixels, masking) -> jax.Array:
        module = self.module
        if masking is not None:
            check_masking(masking)
            module = module.clone(masking=masking)
        return module.apply(self.variables, inputs)

    def _check_images(self, images) -> jax.Array:
        images, channels = jnp.asarray(images), len(self.preprocessing.mean)
        if images.ndim != 4 or images.shape[-1] != channels:
            raise ValueError(
                f"images must be [N, H, W, {channels}], got shape {images.shape}; "
                "add a leading axis to a single image: image[None]"
            )
        if not jnp.issubdtype(images.dtype, jnp.floating):
            raise ValueError(
                f"images must be floating point and normalised, got dtype {images.dtype}; "
                "from 0..255: classifier.normalise(images / 255)"
            )
        return images

"""Fill: the removal that paints hidden pixels by a function of the image and the mask."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from lmjax._utils.host import suggests_black_box
from lmjax._utils.summary import brief
from lmjax.masking.checks import check_image, check_mask
from lmjax.removals.removal import Painting, is_opaque


@jax.tree_util.register_pytree_node_class
@dataclasses.dataclass(frozen=True, eq=False)
class Fill(Painting):
    """Fills hidden pixels by a function of the image and the mask, such as an inpainting network.

    Visible pixels keep the image's own values, whatever the function returns there; hidden pixels
    of the image are 0 when the function sees it, so that it cannot read what lies under the mask.
    All variants share one key, so that the batch size changes nothing. Takes binary masks.

    A pytree: the key is a leaf; a function that is a pytree, as `jax.tree_util.Partial` is, keeps
    its arrays as leaves, and another one is static.

    Example:
      >>> def mean_of_visible(image, mask, key):
      ...     mean = image.sum((0, 1)) / jnp.maximum(mask.sum(), 1)
      ...     return jnp.broadcast_to(mean, image.shape)
      >>> predictor = lmjax.Predictor(classifier, lmjax.Fill(mean_of_visible))

    Attributes:
      function: (image `[H, W, C]` in [0, 1] with hidden pixels 0, mask bool `[H, W]`, key) ->
        image `[H, W, C]` in [0, 1]. Written in JAX; one that is not goes through
        `lmjax.black_box`, and is then given all variants of a batch at once.
      key: random key that the function is given, or None.

    Raises:
      ValueError: not a function.
    """

    function: Callable
    _: dataclasses.KW_ONLY
    key: jax.Array | None = None

    def __post_init__(self):
        if not callable(self.function):
            raise ValueError(
                "function must be callable, (image, mask, key) -> image; got "
                f"{type(self.function).__name__}; a baseline that is an image or a colour goes to "
                "lmjax.Replace(...)"
            )

    def paint(
        self, image: jax.Array, masks: jax.Array, mean: Sequence[float] | None = None
    ) -> jax.Array:
        """Returns the variants as pictures: the image where visible, the fill elsewhere.

        Args:
          image: `[H, W, C]` in [0, 1].
          masks: `[N, H, W]`, 1 = visible.
          mean: ignored.

        Returns:
          `[N, H, W, C]`.

        Raises:
          ValueError: shapes that do not match, masks that are not binary, a result of another
            shape than the image's, or a function that JAX cannot trace.
        """
        check_image(image)
        image = jnp.asarray(image)
        masks = jnp.asarray(check_mask(masks, image.shape[:2]))

        def fill(mask: jax.Array) -> jax.Array:
            visible = mask[..., None]
            filled = jnp.asarray(self.function(jnp.where(visible, image, 0), mask, self.key))
            if filled.shape != image.shape:
                raise ValueError(
                    f"the function of lmjax.Fill must return an image {list(image.shape)}, got "
                    f"shape {list(filled.shape)}"
                )
            return jnp.where(visible, image, filled.astype(image.dtype))

        with suggests_black_box("the function of lmjax.Fill"):
            return jax.vmap(fill)(masks)

    def __repr__(self) -> str:
        key = "" if self.key is None else f", key={brief(self.key)}"
        return f"Fill({brief(self.function)}{key})"

    def tree_flatten(self) -> tuple:
        static = is_opaque(self.function)
        leaves = (None if static else self.function, self.key)
        return leaves, self.function if static else None

    @classmethod
    def tree_unflatten(cls, static: Any, leaves: tuple) -> "Fill":
        fill = object.__new__(cls)  # no checks: leaves may be tracers or placeholders
        object.__setattr__(fill, "function", leaves[0] if static is None else static)
        object.__setattr__(fill, "key", leaves[1])
        return fill

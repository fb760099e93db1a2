"""Predictor: a classifier and a removal, as one pure function (image, masks) -> logits."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lmjax.masking.checks import check_image, check_mask
from lmjax.removals.masking import LayerMasking
from lmjax.removals.replace import Replace


@jax.tree_util.register_pytree_node_class
@dataclasses.dataclass(frozen=True, eq=False)
class Predictor:
    """What `classifier` answers about an image of which only a part is visible.

    A pytree: the classifier's weights and a baseline's arrays are leaves, everything else is
    static. So a predictor goes through `jit` and `vmap` as an argument.

    Attributes:
      classifier: an `lmjax.models` classifier, or anything with the methods its removal calls.
      removal: how hidden features are withheld: an object with
        `logits(classifier, image, masks)`. Frozen and hashable, or a pytree. None takes the
        classifier's own `masking`, or `LayerMasking()` where it has none.

    Raises:
      ValueError: a removal without `logits`.
    """

    classifier: Any
    removal: Any = None

    def __post_init__(self):
        if self.removal is None:
            object.__setattr__(self, "removal", getattr(self.classifier, "masking", LayerMasking()))
        if not hasattr(self.removal, "logits"):
            raise ValueError(
                f"removal must be lmjax.LayerMasking(), lmjax.Replace(...) or another object "
                f"with logits(classifier, image, masks); got {self.removal!r}"
            )

    def __call__(self, image: jax.Array, masks: jax.Array) -> jax.Array:
        """Logits of the variants of one image.

        Pure; works under `jit`, `vmap` and `grad`. Variants that hide everything are allowed.

        Args:
          image: `[H, W, C]` in [0, 1], display colours.
          masks: `[N, H, W]`, 1 = visible, 0 = hidden, bool or numbers; or one mask `[H, W]`, as
            under `vmap(predictor, in_axes=(None, 0))`. Under `jit` the values cannot be checked,
            and all but 0 count as visible. `Replace` also takes floats between.

        Returns:
          Logits `[N, K]`, or `[K]` of one mask.

        Raises:
          ValueError: shapes that do not match, or mask values other than 0 and 1.
        """
        if np.ndim(masks) == 2:
            return self(image, jnp.asarray(masks)[None])[0]
        check_image(image)
        image = jnp.asarray(image)
        masks = check_mask(masks, image.shape[:2], soft=self.takes_soft_masks)
        return self.removal.logits(self.classifier, image, jnp.asarray(masks))

    @property
    def takes_soft_masks(self) -> bool:
        """Whether masks may hold values between 0 and 1."""
        return isinstance(self.removal, Replace)

    @property
    def knows_visible(self) -> bool:
        """Whether `on_visible` is there for this removal and this classifier."""
        return hasattr(self.removal, "logits_on_visible") and hasattr(
            self.classifier, "apply_on_visible"
        )

    @property
    def soft_masks(self) -> bool:
        return self.takes_soft_masks

    @property
    def engines(self) -> tuple[str, ...]:
        return ("dense", "visible", "shared") if self.knows_visible else ("dense",)

    def on_visible(self, image: jax.Array, masks: jax.Array, ledger) -> jax.Array:
        """The same logits, computed on visible positions only.

        Args:
          image, masks: as in a call, the masks bool.
          ledger: see `lmjax.masking.sparse.rows`.
        """
        return self.removal.logits_on_visible(self.classifier, image, masks, ledger)

    def tree_flatten(self):
        # A removal of plain settings is one opaque leaf to JAX: it belongs to the static part.
        if jax.tree_util.all_leaves([self.removal]):
            return (self.classifier, None), self.removal
        return (self.classifier, self.removal), None

    @classmethod
    def tree_unflatten(cls, static, children):
        classifier, removal = children
        predictor = object.__new__(cls)  # no checks: leaves may be tracers or placeholders
        object.__setattr__(predictor, "classifier", classifier)
        object.__setattr__(predictor, "removal", removal if static is None else static)
        return predictor

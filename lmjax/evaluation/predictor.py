"""Predictor: a classifier and a removal, as one pure function (image, masks) -> logits."""

import dataclasses
from typing import Any, NoReturn, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from lmjax import removals
from lmjax._utils.summary import brief
from lmjax.masking.checks import check_image, check_mask
from lmjax.masks.families import MaskFamily, as_family, shares
from lmjax.removals.masking import LayerMasking
from lmjax.removals.removal import check_removal, declared

_REPLACED = {"takes_soft_masks": "soft_masks", "knows_visible": "engines"}


@runtime_checkable
class PredictorLike(Protocol):
    """A function (image, masks) -> logits, in the place of an `lmjax.Predictor`.

    Any such function does, if it is pure and JAX can trace it. The engine is `"dense"`.
    """

    def __call__(self, image: jax.Array, masks: jax.Array) -> jax.Array:
        """Returns the logits `[N, K]` of the variants of one image.

        Args:
          image: `[H, W, C]` in [0, 1], display colours.
          masks: `[N, H, W]`, 1 = visible.
        """
        ...


@jax.tree_util.register_pytree_node_class
@dataclasses.dataclass(frozen=True, eq=False)
class Predictor:
    """A classifier and a removal, as a function from an image and masks to logits.

    A pytree: the classifier's weights and a baseline's arrays are leaves, everything else is
    static. So a predictor goes through `jit` and `vmap` as an argument.

    Example:
      >>> predictor = lmjax.Predictor(classifier, lmjax.LayerMasking())
      >>> lmjax.evaluate(predictor, image, masks).shape
      (5, 2)

    Attributes:
      classifier: an `lmjax.models` classifier, `lmjax.black_box(...)`, or anything with the
        methods its removal calls.
      removal: how hidden features are withheld: an `lmjax.Removal`, or a name that
        `lmjax.removals.make` makes one of without a key or segments, such as `"grey"`. None takes
        the classifier's own `masking`, or `LayerMasking()` where it has none.

    Raises:
      ValueError: a removal without `logits`, or a name that does not make one.
    """

    classifier: Any
    removal: Any = None

    def __post_init__(self):
        if isinstance(self.classifier, str):
            raise ValueError(
                "classifier must be a classifier, not its name; "
                f"lmjax.models.load({self.classifier!r}) loads one"
            )
        removal = self.removal
        if isinstance(removal, str):
            removal = removals.make(removal)
        if removal is None:
            removal = getattr(self.classifier, "masking", LayerMasking())
        object.__setattr__(self, "removal", check_removal(removal))

    def __call__(self, image: jax.Array, masks: jax.Array) -> jax.Array:
        """Returns the logits of the variants of one image.

        Pure; works under `jit`, `vmap` and `grad`. Variants that hide everything are allowed.

        Args:
          image: `[H, W, C]` in [0, 1], display colours.
          masks: `[N, H, W]`, 1 = visible, 0 = hidden, bool or numbers; or one mask `[H, W]`, as
            under `vmap(predictor, in_axes=(None, 0))`. Under `jit` the values cannot be checked,
            and all but 0 count as visible. Where `soft_masks`, also floats between.

        Returns:
          Logits `[N, K]`, or `[K]` of one mask.

        Raises:
          ValueError: shapes that do not match, or mask values other than 0 and 1.
        """
        if np.ndim(masks) == 2:
            return self(image, jnp.asarray(masks)[None])[0]
        check_image(image)
        image = jnp.asarray(image)
        masks = jnp.asarray(check_mask(masks, image.shape[:2], soft=self.soft_masks))
        return self.removal.logits(self.classifier, image, masks)

    @property
    def soft_masks(self) -> bool:
        """Whether masks may hold values between 0 and 1."""
        return declared(self.removal, "soft_masks")

    @property
    def reads_hidden(self) -> bool:
        """Whether the logits depend on pixels that masks hide, which must be colours then."""
        return declared(self.removal, "reads_hidden")

    @property
    def patch_size(self) -> int | None:
        """Side in pixels of the patches that the network is shown as a whole or not at all.

        None where every visible pixel is shown: under all removals but token dropping.
        """
        drops_tokens = declared(self.removal, "where") == "tokens"
        return getattr(self.classifier, "patch_size", None) if drops_tokens else None

    def share_shown(self, masks: ArrayLike | MaskFamily) -> np.ndarray:
        """Computes which share of an image the network is really shown under each mask.

        It is the mask's own share, but for token dropping, which hides all of a patch that a mask
        cuts.

        Args:
          masks: `[N, H, W]`, or a family of masks.

        Returns:
          float32 `[N]`, from 0 to 1.

        Raises:
          ValueError: masks of another shape, or of a size that is not made of whole patches.
        """
        return shares(as_family(masks, soft=self.soft_masks), patch_size=self.patch_size)

    @property
    def engines(self) -> tuple[str, ...]:
        """The engines of `lmjax.Evaluator` that can evaluate this predictor.

        Those that compute on visible positions are among them where the removal and the classifier
        both declare that they can (`sparse`).
        """
        sparse = declared(self.removal, "sparse") and getattr(self.classifier, "sparse", False)
        return ("dense", "visible", "shared") if sparse else ("dense",)

    def on_visible(self, image: jax.Array, masks: jax.Array, layout: Any) -> jax.Array:
        """Returns the same logits, computed on visible positions only.

        Args:
          image: as in a call; or `[N, H, W, C]`, one for each variant.
          masks: bool `[N, H, W]`.
          layout: of rows; see `lmjax.masking.sparse.positions`.
        """
        return self.removal.logits_on_visible(self.classifier, image, masks, layout)

    def __getattr__(self, name: str) -> NoReturn:
        if name in _REPLACED:
            raise AttributeError(f"Predictor.{name} is gone; use Predictor.{_REPLACED[name]}")
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def __repr__(self) -> str:
        return f"Predictor({brief(self.classifier, most=180)}, {brief(self.removal)})"

    def tree_flatten(self):
        # A removal of plain settings is one opaque leaf to JAX: it belongs to the static part.
        if jax.tree_util.all_leaves([self.removal]):
            return (self.classifier, None), self.removal
        return (self.classifier, self.removal), None

    @classmethod
    def tree_unflatten(cls, static, children):
        classifier, removal = children
        predictor = object.__new__(cls)  # no checks: leaves may be tracers or placeholders
        vars(predictor).update(classifier=classifier, removal=removal if static is None else static)
        return predictor

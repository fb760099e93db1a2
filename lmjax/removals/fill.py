"""Fill: the removal that paints hidden pixels by a function of the image and the mask."""

import dataclasses
import inspect
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lmjax._utils import host
from lmjax._utils.checks import set_whole
from lmjax._utils.host import suggests_black_box
from lmjax._utils.keys import check_key
from lmjax._utils.summary import brief
from lmjax.masking.checks import check_colours, check_image, check_mask
from lmjax.removals import libraries, visible
from lmjax.removals.average import averaged
from lmjax.removals.removal import Painting, is_opaque
from lmjax.removals.replace import check_shape

# Fills that come with lmjax: their results are colours, and need no check in every program.
_OWN = (
    *(visible.ring, visible.harmonic, visible.noisy_linear, visible.histogram),
    *(libraries.biharmonic, libraries.telea, libraries.navier_stokes),
)


_MIDDLE_GREY = 0.5


@jax.tree_util.register_pytree_node_class
@dataclasses.dataclass(frozen=True, eq=False)
class Fill(Painting):
    """Fills hidden pixels by a function of the image and the mask, such as an inpainting network.

    Visible pixels keep the image's own values: what the function returns there is not used. Hidden
    pixels of the image are 0 when the function sees it, so that it cannot read what lies under the
    mask. All variants share one key, so that the batch size changes nothing. Takes binary masks.

    Where nothing is visible there is nothing to fill from, and the variant is the mean colour of
    the network's preprocessing, as under `"grey"`.

    With several draws the function is called with as many keys, and the probabilities of the
    classes are averaged: the logits are the logarithms of the averages. A variant then costs as
    much as that many. `lmjax.removals.StandardErrors` gives the standard errors.

    A pytree: the key is a leaf; a function that is a pytree, as `jax.tree_util.Partial` is, keeps
    its arrays as leaves, and another one is static.

    Example:
      >>> def mean_of_visible(image, mask, key):
      ...     mean = image.sum((0, 1)) / jnp.maximum(mask.sum(), 1)
      ...     return jnp.broadcast_to(mean, image.shape)
      >>> predictor = lmjax.Predictor(classifier, lmjax.Fill(mean_of_visible))

    Attributes:
      function: (image `[H, W, C]` in [0, 1] with hidden pixels 0, mask bool `[H, W]`, key) ->
        image `[H, W, C]` in [0, 1]. It is called where nothing or everything is visible, too.
        Written in JAX; one that is not goes through `lmjax.black_box`, and is then given all
        variants of a batch at once.
      key: random key that the function is given, or None.
      draws: how often the function is called for a variant, each time with another key.

    Raises:
      ValueError: not a function, something that is not a random key, or several draws
        without one.
    """

    function: Callable
    _: dataclasses.KW_ONLY
    key: jax.Array | None = None
    draws: int = 1

    def __post_init__(self):
        if not callable(self.function):
            raise ValueError(
                "function must be callable, (image, mask, key) -> image; got "
                f"{type(self.function).__name__}; a baseline that is an image or a colour goes to "
                "lmjax.Replace(...)"
            )
        if not _takes_three(self.function):
            raise ValueError(
                "function must take (image, mask, key), also where it uses no key; got "
                f"{brief(self.function)}"
            )
        set_whole(self, "draws", least=1)
        if self.key is not None:
            check_key(self.key)
        if self.draws > 1 and self.key is None:
            raise ValueError(
                f"{self.draws} draws need key=jax.random.key(seed): without one, all are equal"
            )

    def paint(
        self, image: jax.Array, masks: jax.Array, mean: Sequence[float] | None = None
    ) -> jax.Array:
        """Returns the variants as pictures: the image where visible, the fill elsewhere.

        Args:
          image: `[H, W, C]` in [0, 1].
          masks: `[N, H, W]`, 1 = visible.
          mean: C floats, the colour of variants of which nothing is visible; None takes 0.5.

        Returns:
          `[N, H, W, C]`. Of several draws, the first.

        Raises:
          ValueError: shapes that do not match, masks that are not binary, a function that JAX
            cannot trace; a result of another shape than the image's, or not floating point, or
            with NaN or colours outside [0, 1] in a hidden pixel. (In a compiled program the values
            are checked while it runs: `lmjax.evaluate` raises this error, and where the program is
            called directly it is the cause in the text of JAX's own.)
        """
        return self._painted(image, masks, mean, self._keys()[0])

    def logits(self, classifier: Any, image: jax.Array, masks: jax.Array) -> jax.Array:
        """Returns the plain network's logits `[N, K]` for the filled images; see `Painting`.

        Args:
          classifier, image, masks: as in `Painting.logits`.
        """
        if self.draws == 1:
            return super().logits(classifier, image, masks)
        return averaged(classifier, self.answers(classifier, image, masks))

    def answers(self, classifier: Any, image: jax.Array, masks: jax.Array) -> jax.Array:
        """Returns the logits of each draw, `[D, N, K]`; arguments as in `logits`."""

        def one(key):  # one draw at a time: the memory of a single one
            images = self._painted(image, masks, classifier.preprocessing.mean, key)
            return classifier.apply(classifier.normalise(images))

        return jax.lax.map(one, self._keys()) if self.draws > 1 else one(self.key)[None]

    def _keys(self) -> Any:
        if self.key is None or self.draws == 1:
            return [self.key]
        return jax.random.split(self.key, self.draws)

    def _painted(self, image: jax.Array, masks: jax.Array, mean: Any, key: Any) -> jax.Array:
        check_image(image)
        image = jnp.asarray(image)
        masks = jnp.asarray(check_mask(masks, image.shape[:2]))
        empty = jnp.asarray(_MIDDLE_GREY if mean is None else mean, image.dtype)
        if empty.ndim:
            check_shape("mean", empty, image.shape[-1:])

        def fill(mask: jax.Array) -> jax.Array:
            visible = mask[..., None]
            filled = self.function(jnp.where(visible, image, 0), mask, key)
            filled = _check_result(filled, image, mask, self.function)
            filled = jnp.where(mask.any(), filled.astype(image.dtype), empty)
            return jnp.where(visible, image, filled)

        with suggests_black_box("the function of lmjax.Fill"):
            return jax.vmap(fill)(masks)

    def __repr__(self) -> str:
        key = "" if self.key is None else f", key={brief(self.key)}"
        draws = "" if self.draws == 1 else f", draws={self.draws}"
        return f"Fill({brief(self.function)}{key}{draws})"

    def tree_flatten(self) -> tuple:
        static = is_opaque(self.function)
        leaves = (None if static else self.function, self.key)
        return leaves, (self.function if static else None, self.draws)

    @classmethod
    def tree_unflatten(cls, static: Any, leaves: tuple) -> "Fill":
        fill = object.__new__(cls)  # no checks: leaves may be tracers or placeholders
        (function, draws), (leaf, key) = static, leaves
        vars(fill).update(function=leaf if function is None else function, key=key, draws=draws)
        return fill


def _check_result(filled: Any, image: jax.Array, mask: jax.Array, function: Any) -> jax.Array:
    """Returns what a function filled; raises ValueError for what is no image in [0, 1]."""
    filled = jnp.asarray(filled)
    if filled.shape != image.shape:
        raise ValueError(
            f"the function of lmjax.Fill must return an image {list(image.shape)}, got "
            f"shape {list(filled.shape)}"
        )
    if not jnp.issubdtype(filled.dtype, jnp.floating):
        raise ValueError(
            "the function of lmjax.Fill must return floats in [0, 1], got dtype "
            f"{filled.dtype}; divide 0..255 by 255"
        )
    if any(function is own for own in _OWN):  # these are known to be right
        return filled
    taken = (~mask & mask.any())[..., None]
    shown = jax.lax.stop_gradient(jnp.where(taken, filled, 0))
    found = jnp.stack([jnp.isfinite(shown).all(), shown.min(), shown.max()])
    passed = host.call_batch(_Colours(brief(function)), (), found[None])[0]
    return jnp.where(passed > 0, filled, jnp.nan)


@dataclasses.dataclass(frozen=True)
class _Colours:
    """The host function that checks what a function filled: all finite, least, greatest `[N, 3]`.

    Attributes:
      function: its name.
    """

    function: str

    def __call__(self, found: np.ndarray) -> np.ndarray:
        """Returns ones `[N]`; raises ValueError where a variant's colours are not in [0, 1]."""
        name = f"the result of lmjax.Fill's function {self.function}"
        if not found[:, 0].all():
            raise ValueError(
                f"{name} holds NaN or infinity in hidden pixels; it must hold colours in [0, 1]"
            )
        check_colours(found[:, 1:], name)
        return np.ones(len(found), np.float32)


def _takes_three(function: Callable) -> bool:
    """Whether a function takes three arguments, as far as it tells."""
    try:
        inspect.signature(function).bind(None, None, None)
    except TypeError:
        return False
    except ValueError:  # a function in C does not tell
        pass
    return True

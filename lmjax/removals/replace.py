"""Replace: the removal that paints a baseline over hidden pixels, before the network.

Colours are display colours in [0, 1], before normalisation.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple, NoReturn

import jax
import jax.numpy as jnp
import numpy as np

from lmjax._utils.checks import set_number, set_whole
from lmjax._utils.keys import check_key
from lmjax._utils.summary import brief, summarize
from lmjax.masking.checks import check_colours, check_image, check_mask, is_traced
from lmjax.removals.baselines import (
    gaussian_blur,
    gaussian_noise,
    rise_blur,
    segment_mean,
    uniform_noise,
)
from lmjax.removals.removal import Painting, is_opaque


class Named(NamedTuple):
    """A baseline with a name.

    Attributes:
      picture: function (replace, image `[H, W, C]`, mean) -> what broadcasts to `[H, W, C]`.
      description: one line.
      needs: the option of `Replace` without which there is no such baseline, or None.
      of_image: whether it is made of the whole image, hidden pixels included.
    """

    picture: Callable
    description: str
    needs: Literal["key", "segments"] | None = None
    of_image: bool = False


def _grey(replace: "Replace", image: jax.Array, mean) -> jax.Array:
    return _mean_colour(mean, image)


BASELINES: dict[str, Named] = {
    "black": Named(lambda replace, image, mean: jnp.zeros(()), "black"),
    "white": Named(lambda replace, image, mean: jnp.ones(()), "white"),
    "grey": Named(_grey, "the mean colour of the network's preprocessing"),
    "image_mean": Named(
        lambda replace, image, mean: image.mean(axis=(0, 1)),
        "the image's mean colour",
        of_image=True,
    ),
    "segment_mean": Named(
        lambda replace, image, mean: segment_mean(image, replace._labels(image)),
        "each segment's mean colour",
        needs="segments",
        of_image=True,
    ),
    "blur": Named(
        lambda replace, image, mean: gaussian_blur(
            image, sigma=replace.sigma, radius=replace.radius
        ),
        "the image under a Gaussian blur",
        of_image=True,
    ),
    "rise_blur": Named(
        lambda replace, image, mean: rise_blur(image, _mean_colour(mean, image)),
        "the image under the blur of RISE's insertion, 11 pixels wide",
        of_image=True,
    ),
    "gaussian_noise": Named(
        lambda replace, image, mean: gaussian_noise(
            image.shape, key=replace.key, std=replace.noise_std
        ),
        "Gaussian noise for every pixel",
        needs="key",
    ),
    "uniform_noise": Named(
        lambda replace, image, mean: uniform_noise(image.shape, key=replace.key),
        "uniform noise for every pixel",
        needs="key",
    ),
    "grey_smooth": Named(_grey, "grey, smoothed at the edge of the hidden region"),
}
"""The baselines of `Replace` that have a name."""

_SPELLINGS = {"gray": "grey", "gray_smooth": "grey_smooth"}


def canonical_spelling(name: str) -> str:
    """Returns a name in the spelling of this package: `"gray"` is `"grey"`."""
    if not isinstance(name, str):
        raise ValueError(f"removal must be a name, got {brief(name)}")
    return _SPELLINGS.get(name, name)


@jax.tree_util.register_pytree_node_class
@dataclasses.dataclass(frozen=True, eq=False)
class Replace(Painting):
    """Replaces hidden pixels by a baseline; the plain network then sees the whole picture.

    A pytree: baseline images, colours, key and segments are leaves, names and functions static.
    Baselines made from the picture (`image_mean`, `segment_mean`, blurs, functions) read hidden
    pixels too; the others never do. Noise is drawn once for a `Replace`: all variants share it.
    What depends on the mask as well is `lmjax.Fill`.

    Example:
      >>> predictor = lmjax.Predictor(classifier, lmjax.Replace((1.0, 0.0, 1.0)))  # magenta
      >>> lmjax.evaluate(predictor, image, masks).shape
      (5, 2)

    Attributes:
      baseline: one of
        `"black"`, `"white"`;
        `"grey"` (or `"gray"`): the mean colour of the network's preprocessing;
        `"grey_smooth"`: grey, then the replaced picture smoothed inside the hidden region by a
        5 x 5 Gaussian with sigma 1, which softens the edge of the hole;
        `"image_mean"`: the picture's mean colour;
        `"segment_mean"`: each segment's mean colour, the default of the `lime` package
        (needs `segments`);
        `"blur"`: the picture under a Gaussian blur (Fong & Vedaldi 2017, arXiv 1704.03296,
        section 4.1, whose sigma of 10 pixels is the default);
        `"rise_blur"`: the picture under the blur from which RISE's insertion starts;
        `"gaussian_noise"`: N(0.5, noise_std^2) per pixel and channel, clipped to [0, 1];
        `"uniform_noise"`: uniform in [0, 1) per pixel and channel (both need `key`);
        a colour, C floats; another image `[H, W, C]`; or a function image -> image.
      key: random key of the noise baselines.
      segments: `[H, W]` ints from 0, for `"segment_mean"`.
      sigma: standard deviation of `"blur"`, in pixels.
      radius: furthest pixel that counts in `"blur"`; None takes the whole picture. sigma 5 and
        radius 5 start insertion curves (Petsiuk et al. 2018, arXiv 1806.07421).
      noise_std: standard deviation of `"gaussian_noise"`. 0.25 is ours: two of them span [0, 1].

    Raises:
      ValueError: unknown name, wrong shape or range, missing `key` or `segments`,
        something that is not a random key.
    """

    baseline: str | Callable | Sequence[float] | jax.Array
    _: dataclasses.KW_ONLY
    key: jax.Array | None = None
    segments: jax.Array | None = None
    sigma: float = 10.0
    radius: int | None = None
    noise_std: float = 0.25
    soft_masks = True

    def __post_init__(self):
        if isinstance(self.baseline, str):
            object.__setattr__(self, "baseline", canonical_spelling(self.baseline))
            self._check_name(self.baseline)
        elif not callable(self.baseline):
            object.__setattr__(self, "baseline", _check_picture(self.baseline))
        if self.key is not None:
            check_key(self.key)
        if self.segments is not None:
            _check_labels(self.segments)
        set_number(self, "sigma", above=0, note="pixels")
        set_number(self, "noise_std", above=0)
        if self.radius is not None:
            set_whole(self, "radius", least=0, note="pixels; None takes all")

    @property
    def reads_hidden(self) -> bool:
        """Whether the baseline is made of the whole image, hidden pixels included."""
        if isinstance(self.baseline, str):
            return BASELINES[self.baseline].of_image
        return callable(self.baseline)

    def _check_name(self, name: str) -> None:
        if name not in BASELINES:
            raise ValueError(
                f"baseline must be one of {', '.join(BASELINES)}, a colour, an image [H, W, C] or "
                f"a function image -> image; got {brief(name)}"
            )
        if BASELINES[name].needs == "key" and self.key is None:
            raise ValueError(f"baseline {name!r} needs key=jax.random.key(seed)")
        if BASELINES[name].needs == "segments" and self.segments is None:
            raise ValueError(f"baseline {name!r} needs segments=, a label map [H, W]")

    def paint(
        self, image: jax.Array, masks: jax.Array, mean: Sequence[float] | None = None
    ) -> jax.Array:
        """Returns the variants as pictures: the image where visible, the baseline elsewhere.

        Args:
          image: `[H, W, C]` in [0, 1].
          masks: `[N, H, W]`, 1 = visible. Floats in between blend the two.
          mean: C floats, the colour of `"grey"` and `"grey_smooth"`; others ignore it.

        Returns:
          `[N, H, W, C]` in [0, 1].

        Raises:
          ValueError: shapes that do not match, or mask values outside [0, 1].
        """
        check_image(image)
        image = jnp.asarray(image)
        masks = jnp.asarray(check_mask(masks, image.shape[:2], soft=True))
        painted = _blend(masks, image, self._picture(image, mean)[None])
        if isinstance(self.baseline, str) and self.baseline == "grey_smooth":
            painted = _blend(masks, image, gaussian_blur(painted, sigma=1.0, radius=2))
        return painted

    def __getattr__(self, name: str) -> NoReturn:
        if name == "fill":
            raise AttributeError("Replace.fill is gone; use Replace.paint, which is the same")
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def __repr__(self) -> str:
        options = [
            f"{field.name}={brief(getattr(self, field.name))}"
            for field in dataclasses.fields(self)[1:]
            if getattr(self, field.name) is not field.default
        ]
        return f"Replace({', '.join([brief(self.baseline), *options])})"

    def _picture(self, image: jax.Array, mean) -> jax.Array:
        if isinstance(self.baseline, str):
            picture = BASELINES[self.baseline].picture(self, image, mean)
        elif callable(self.baseline):
            picture = jnp.asarray(self.baseline(image))
            check_shape("the baseline function's result", picture, image.shape)
        else:
            picture = jnp.asarray(self.baseline)
            check_shape("baseline", picture, image.shape[-picture.ndim :])
        return jnp.broadcast_to(picture, image.shape).astype(image.dtype)

    def _labels(self, image: jax.Array) -> jax.Array:
        segments = jnp.asarray(self.segments)
        check_shape("segments", segments, image.shape[:2])
        return segments

    def tree_flatten(self):
        static = isinstance(self.baseline, str) or is_opaque(self.baseline)
        leaves = (None if static else self.baseline, self.key, self.segments)
        settings = self.sigma, self.radius, self.noise_std
        return leaves, (self.baseline if static else None, settings)

    @classmethod
    def tree_unflatten(cls, static, leaves):
        replace = object.__new__(cls)  # no checks: leaves may be tracers or placeholders
        baseline, settings = static
        first = leaves[0] if baseline is None else baseline
        names = ("baseline", "key", "segments", "sigma", "radius", "noise_std")
        vars(replace).update(zip(names, (first, *leaves[1:], *settings)))
        return replace


def _blend(masks: jax.Array, image: jax.Array, baseline: jax.Array) -> jax.Array:
    """`[N, H, W]` masks choose between `[H, W, C]` and `[1 or N, H, W, C]`."""
    masks, image = masks[..., None], image[None]
    if masks.dtype == bool:
        return jnp.where(masks, image, baseline)
    # Hidden NaN must not leak through 0 * NaN, and gradients with respect to the mask stay true.
    image = jnp.where((masks > 0) | jnp.isfinite(image), image, 0)
    return masks * image + (1 - masks) * baseline


def _mean_colour(mean, image: jax.Array) -> jax.Array:
    if mean is None:
        raise ValueError("mean is needed by this baseline: the preprocessing's mean, C floats")
    mean = jnp.asarray(mean)
    check_shape("mean", mean, image.shape[-1:])
    return mean


def _check_picture(baseline) -> jax.Array | np.ndarray:
    if not is_traced(baseline) and not isinstance(baseline, jax.Array):
        baseline = np.asarray(baseline)
    if baseline.ndim not in (1, 3):
        raise ValueError(
            "baseline must be a name, a colour of C floats, an image [H, W, C] or a function; "
            f"got an array of shape {baseline.shape}"
        )
    if baseline.ndim == 3:
        check_image(baseline, "baseline")
    elif not jnp.issubdtype(baseline.dtype, jnp.number):
        raise ValueError(f"baseline must be a colour of C floats, got {brief(baseline)}")
    check_colours(baseline, "baseline")
    return baseline.astype(np.float32)


def _check_labels(segments) -> None:
    if np.ndim(segments) != 2:
        raise ValueError(f"segments must be [H, W], got shape {np.shape(segments)}")
    if is_traced(segments):
        return
    labels = np.asarray(segments)
    whole = labels.dtype.kind in "iu" and labels.size > 0
    if not whole or labels.min() < 0 or labels.max() >= labels.size:
        raise ValueError(
            f"segments must hold ints from 0 to S - 1, got {summarize(labels)}; renumber them: "
            "lmjax.segments.from_labels(label_map)"
        )


def check_shape(name: str, array, shape: tuple[int, ...]) -> None:
    """Raises ValueError unless an array has the shape that an image asks for."""
    if array.shape != tuple(shape):
        raise ValueError(
            f"{name} must have shape {tuple(shape)} to match the image, got {array.shape}"
        )

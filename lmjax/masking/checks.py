"""Checks of images and masks, shared by everything that takes them.

Shapes and dtypes are always checked. Values can be checked only where they are known: inside `jit`
and `vmap` they are not, and the checks of values are skipped.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax import core
from jax.experimental import checkify

_RANGE_TOLERANCE = 1e-5  # rounding of a resize in float32, not an overshoot
_NAMED_VALUES = 5


def is_traced(array) -> bool:
    """Returns whether an array has a shape but no values yet, as inside `jit` and `vmap`."""
    return isinstance(array, core.Tracer)


def check_image(image, name: str = "image") -> None:
    """Raises ValueError unless `image` is `[H, W, C]` and floating point (values are not read)."""
    shape = np.shape(image)
    if len(shape) != 3 or 0 in shape:
        raise ValueError(
            f"{name} must be [H, W, C], got shape {shape}; "
            "for a grey picture add the channel: image[..., None]; for a batch pass one image"
        )
    dtype = _dtype(image)
    if not jnp.issubdtype(dtype, jnp.floating):
        raise ValueError(
            f"{name} must hold floats in [0, 1], got dtype {dtype}; "
            "divide 0..255 by 255: image.astype('float32') / 255"
        )


def check_colours(values, name: str = "image") -> None:
    """Raises ValueError unless all values are finite and in [0, 1]; skipped under tracing."""
    if is_traced(values):
        return
    values = np.asarray(values)
    if not np.isfinite(values).all():
        raise ValueError(f"{name} holds NaN or infinity; only hidden pixels may")
    low, high = values.min(initial=0), values.max(initial=0)
    if low < -_RANGE_TOLERANCE or high > 1 + _RANGE_TOLERANCE:
        raise ValueError(
            f"{name} must hold display colours in [0, 1], got values from {low:g} to {high:g}; "
            "divide 0..255 by 255, undo a normalisation, or clip what a resize overshot"
        )


def check_mask(masks, shape: tuple[int, ...], name: str = "masks", *, soft: bool = False):
    """Returns checked masks, 1 = visible and 0 = hidden, as bool.

    Args:
      masks: `[N, H, W]`, bool or numbers.
      shape: what the last axes must be: `(H, W)`, or `(N, H, W)` to fix the number as well.
      name: the argument's name in errors.
      soft: allow floats between 0 and 1, which then stay floats.

    Returns:
      bool `[N, H, W]` (floating point where `soft` and so given). NumPy stays NumPy. Under tracing,
      where values cannot be checked, every value but 0 counts as visible; a function that goes
      through `jax.experimental.checkify.checkify` reports values other than 0 and 1.

    Raises:
      ValueError: another shape, or values other than 0 and 1; the text names them. A derivative
        with respect to masks that must be 0 or 1: it would be 0 everywhere.
    """
    if not isinstance(masks, jax.Array):
        masks = np.asarray(masks)
    shape = tuple(shape)
    if masks.ndim != 3 or masks.shape[-len(shape) :] != shape:
        expected = ", ".join(map(str, ("N", *shape)[-3:]))
        raise ValueError(
            f"{name} must be [{expected}], 1 = visible, to match the image; "
            f"got shape {masks.shape}"
            + (f"; for one mask: {name}[None]" if masks.ndim == 2 else "")
        )
    if masks.dtype == bool:
        return masks
    if not jnp.issubdtype(masks.dtype, jnp.number):
        raise ValueError(f"{name} must be bool or numbers, got dtype {masks.dtype}")
    soft = soft and jnp.issubdtype(masks.dtype, jnp.floating)
    if not is_traced(masks):
        _check_mask_values(np.asarray(masks), name, soft)
        return masks if soft else masks.astype(bool)
    if soft:
        return masks
    checkify.debug_check(((masks == 0) | (masks == 1)).all(), f"{name} must hold only 0 and 1")
    return _is_visible(masks)


@jax.custom_jvp
def _is_visible(masks: jax.Array) -> jax.Array:
    return masks != 0


@_is_visible.defjvp
def _refuse_derivative(*_):
    raise ValueError(
        "masks must be 0 or 1 here, so a derivative with respect to them would be 0 everywhere; "
        "take a removal that blends, such as lmjax.Replace('blur'), or stop the derivative: "
        "jax.lax.stop_gradient(masks)"
    )


_SOFT = "; values between are for removals that blend, such as lmjax.Replace('blur')"


def _check_mask_values(masks: np.ndarray, name: str, soft: bool) -> None:
    bad = ~((masks >= 0) & (masks <= 1)) if soft else ~((masks == 0) | (masks == 1))
    if not bad.any():
        return
    values = np.unique(masks[bad])
    named = ", ".join(f"{value:g}" for value in values[:_NAMED_VALUES])
    more = f" and {len(values) - _NAMED_VALUES} more" if len(values) > _NAMED_VALUES else ""
    allowed = "values from 0 to 1" if soft else "only 0 (hidden) and 1 (visible)"
    first = np.unravel_index(bad.argmax(), bad.shape)
    raise ValueError(
        f"{name} must hold {allowed}, got {named}{more} (first at {list(map(int, first))}); "
        f"make it binary, for example {name} > 0.5{_SOFT if name == 'masks' and not soft else ''}"
    )


def _dtype(array):
    foreign = hasattr(array, "__array__") and not isinstance(array, jax.Array | np.generic)
    return np.asarray(array).dtype if foreign or not hasattr(array, "dtype") else array.dtype

"""Fills of other libraries, on the host: functions of (image, mask, key), for `lmjax.Fill`.

Arguments are those of the fills in `lmjax.removals.visible`; the key is ignored, and gradients do
not pass.
"""

import functools
import importlib
from collections.abc import Callable
from types import ModuleType

import jax
import numpy as np

from lmjax._utils import host

_RADIUS = 3  # pixels around each that OpenCV looks at, as shap's image masker has it
_LEVELS = 255  # OpenCV takes colours as bytes


def biharmonic(image: jax.Array, mask: jax.Array, key: jax.Array | None = None) -> jax.Array:
    """Fills by the biharmonic equation, as scikit-image's `inpaint_biharmonic` solves it."""
    return _on_host(_biharmonic, image, mask)


def telea(image: jax.Array, mask: jax.Array, key: jax.Array | None = None) -> jax.Array:
    """Fills by fast marching (Telea 2004), as OpenCV's `inpaint` with a radius of 3 pixels.

    Colours are rounded to bytes on the way. OpenCV's result depends a little on what lies under the
    mask; under `lmjax.Fill` that is black. Needs the extra `inpaint`.
    """
    _opencv()
    return _on_host(_telea, image, mask)


def navier_stokes(image: jax.Array, mask: jax.Array, key: jax.Array | None = None) -> jax.Array:
    """Fills by fluid dynamics (Bertalmio et al. 2001), as OpenCV's `inpaint`, radius 3 pixels.

    Colours are rounded to bytes on the way. OpenCV's result depends a little on what lies under the
    mask; under `lmjax.Fill` that is black. Needs the extra `inpaint`.
    """
    _opencv()
    return _on_host(_navier_stokes, image, mask)


def _on_host(function: Callable, image: jax.Array, mask: jax.Array) -> jax.Array:
    return host.call_batch(function, image.shape, image[None], mask[None])[0]


def _where_it_can(fill: Callable, images: np.ndarray, masks: np.ndarray) -> np.ndarray:
    """Fills the images of which some pixels are visible and others are hidden."""
    results = images.astype(np.float32)
    for i, (image, mask) in enumerate(zip(images, masks)):
        if mask.any() and not mask.all():
            results[i] = fill(image, mask)
    return results


def _biharmonic(images: np.ndarray, masks: np.ndarray) -> np.ndarray:
    from skimage.restoration import inpaint_biharmonic

    def fill(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
        return np.clip(inpaint_biharmonic(image, ~mask, channel_axis=-1), 0, 1)

    return _where_it_can(fill, images, masks)


def _by_opencv(images: np.ndarray, masks: np.ndarray, *, method: str) -> np.ndarray:
    inpaint, flags = _opencv().inpaint, getattr(_opencv(), method)

    def fill(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
        # OpenCV takes 1 or 3 channels; channels do not depend on one another.
        levels = np.round(_LEVELS * image).astype(np.uint8)
        parts = [levels] if levels.shape[-1] == 3 else np.split(levels, levels.shape[-1], axis=-1)
        hidden = (~mask).astype(np.uint8)
        filled = [inpaint(np.ascontiguousarray(part), hidden, _RADIUS, flags) for part in parts]
        return np.concatenate([each.reshape(*mask.shape, -1) for each in filled], -1) / _LEVELS

    return _where_it_can(fill, images, masks)


_telea = functools.partial(_by_opencv, method="INPAINT_TELEA")
_navier_stokes = functools.partial(_by_opencv, method="INPAINT_NS")


def _opencv() -> ModuleType:
    try:
        return importlib.import_module("cv2")
    except ImportError as error:
        raise ImportError(
            "the removals telea and navier_stokes need OpenCV, which is not installed "
            f'({error}): pip install "lmjax[inpaint]"'
        ) from error

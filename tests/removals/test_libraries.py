"""Fills of other libraries, against the libraries."""

import importlib
import sys

import jax
import numpy as np
import pytest
from skimage.restoration import inpaint_biharmonic

import lmjax
from lmjax import removals
from tests.support.optional import needs_opencv
from tests.support.small_classifier import small_classifier

H, W = 20, 24
RNG = np.random.default_rng(0)
IMAGE = RNG.random((H, W, 3)).astype(np.float32)
MASKS = np.stack([RNG.random((H, W)) < 0.7, np.broadcast_to(np.arange(W) < 15, (H, W))])


def test_biharmonic_is_scikit_images():
    painted = removals.make("biharmonic").paint(IMAGE, MASKS)
    for mask, found in zip(MASKS, painted):
        expected = inpaint_biharmonic(np.where(mask[..., None], IMAGE, 0), ~mask, channel_axis=-1)
        np.testing.assert_allclose(found, expected, atol=1e-6)


@needs_opencv
@pytest.mark.parametrize(("name", "flag"), [("telea", "TELEA"), ("navier_stokes", "NS")])
def test_inpainting_is_opencvs(name, flag):
    cv2 = importlib.import_module("cv2")
    flags = getattr(cv2, f"INPAINT_{flag}")
    painted = np.asarray(removals.make(name).paint(IMAGE, MASKS))
    for mask, found in zip(MASKS, painted):
        levels = np.round(255 * np.where(mask[..., None], IMAGE, 0)).astype(np.uint8)
        expected = cv2.inpaint(levels, (~mask).astype(np.uint8), inpaintRadius=3, flags=flags)
        np.testing.assert_allclose(found[~mask], expected[~mask] / 255, atol=1e-6)
        np.testing.assert_array_equal(found[mask], IMAGE[mask])


@pytest.mark.parametrize("name", ["telea", "navier_stokes"])
def test_without_opencv_the_error_names_the_extra(name, monkeypatch):
    assert removals.paints(name)  # asking about it needs no OpenCV
    monkeypatch.setitem(sys.modules, "cv2", None)
    predictor = lmjax.Predictor(small_classifier((H, W, 3)), name)
    with pytest.raises(ImportError, match=r"telea and navier_stokes need.*lmjax\[inpaint\]"):
        lmjax.evaluate(predictor, IMAGE, MASKS)


def test_gradients_say_that_there_are_none():
    predictor = lmjax.Predictor(small_classifier((H, W, 3)), "biharmonic")
    with pytest.raises(ValueError, match="gradients do not pass"):
        jax.grad(lambda image: predictor(image, MASKS).sum())(IMAGE)

"""Explanations of vision transformers: segments of whole patches, and shares that are shown."""

import numpy as np
import pytest

import lmjax
from lmjax.explanation.render import record
from lmjax.masking.patches import whole_patches
from tests.support.any_size_network import any_size_network
from tests.support.small_transformer import small_transformer

PHOTOGRAPH = np.random.default_rng(0).random((80, 90, 3))
OPTIONS = {"removal": ("token_dropping", "grey"), "num_samples": 60, "n_segments": 12}
pytestmark = pytest.mark.filterwarnings("ignore:60 samples for")


def transformer(patch_size):
    return small_transformer(patch_size, resize=72)


def test_token_dropping_shows_what_masks_show():
    patch_size = 32
    explanation = lmjax.explain(PHOTOGRAPH, model=transformer(patch_size), **OPTIONS)
    segments = explanation.segments
    np.testing.assert_array_equal(segments, lmjax.segments.snap(segments, patch_size))
    results = record(explanation)["results"]
    assert set(results) == {"lime/token_dropping", "lime/grey"}
    for result in results.values():
        assert result["shown"] == result["visible"]
        assert 0.3 < result["visible"] < 0.7
    assert "masks" not in explanation.summary()
    (variant,) = explanation.variants
    seen = ~np.isnan(variant.pictures["token_dropping"]).any(axis=-1)
    np.testing.assert_array_equal(seen, variant.mask)


def test_without_snapping_the_difference_is_told():
    options = OPTIONS | {"method": ("lime", "leave_one_out"), "snap_to_patches": False}
    explanation = lmjax.explain(PHOTOGRAPH, model=transformer(32), **options)
    plain = lmjax.segments.slic(explanation.image.pixels, n_segments=12)
    np.testing.assert_array_equal(explanation.segments, plain)
    found = record(explanation)
    assert found["settings"]["snap_to_patches"] is False
    dropped, grey = (found["results"][f"lime/{name}"] for name in OPTIONS["removal"])
    assert dropped["visible"] == grey["visible"] == grey["shown"]
    assert dropped["shown"] < 0.7 * dropped["visible"]
    told = f"shows {dropped['shown']:.0%} where masks show {dropped['visible']:.0%}"
    titles = [axes.get_title() for axes in explanation.figure().axes]
    assert sum(told in title for title in titles) == 1
    assert f"{dropped['shown']:.0%} (masks {dropped['visible']:.0%})" in explanation.summary()
    (variant,) = explanation.variants
    seen = ~np.isnan(variant.pictures["token_dropping"]).any(axis=-1)
    np.testing.assert_array_equal(seen, whole_patches(variant.mask, 32))
    assert not np.isnan(variant.pictures["grey"]).any()


def test_squares_of_a_grid_are_patches():
    for patch_size in (16, 32):
        options = {"segmenter": "grid", "removal": ("grey",), "num_samples": 60}
        explanation = lmjax.explain(PHOTOGRAPH, model=transformer(patch_size), **options)
        expected = lmjax.segments.grid(explanation.image.pixels, size=patch_size)
        np.testing.assert_array_equal(explanation.segments, expected)


def test_other_networks_have_the_segments_of_the_segmenter():
    options = OPTIONS | {"removal": ("layer", "grey")}
    explanation = lmjax.explain(PHOTOGRAPH, model=any_size_network(), **options)
    plain = lmjax.segments.slic(explanation.image.pixels, n_segments=12)
    np.testing.assert_array_equal(explanation.segments, plain)
    for result in record(explanation)["results"].values():
        assert result["shown"] == result["visible"]


def test_methods_without_masks_have_no_shares():
    options = {"method": ("gradient",), "removal": ("grey",)}
    explanation = lmjax.explain(PHOTOGRAPH, model=transformer(32), **options)
    for result in record(explanation)["results"].values():
        assert "shown" not in result

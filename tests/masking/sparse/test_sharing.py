"""Shared rows against full-size activations."""

import jax.numpy as jnp
import numpy as np
import pytest

import lmjax
from lmjax.masking.sparse.rows import Capacities
from lmjax.masking.sparse.sharing import (
    Prefix,
    Suffix,
    full_size,
    visible_rows,
)
from tests.evaluation.test_engines import IMAGE, random_masks, random_predictor
from tests.support.compilations import quick_jit

ROOM = 4_000


def in_two_parts(predictor, image, masks, *, seam, on_visible):
    """Logits by a shared prefix up to a seam, and the rest for half of the variants at a time."""
    prefix = Prefix(seam, (ROOM,) * 100)
    predictor.on_visible(image, masks, prefix)
    rows, positions = prefix.cut

    def rest(some):
        def resume(at):
            index = positions.index[some]
            if on_visible:
                return visible_rows(rows, index, at, Capacities((ROOM,) * 100))
            return full_size(rows, index, at)

        return predictor.on_visible(image, masks[some], Suffix(seam, resume))

    middle = len(masks) // 2
    return jnp.concatenate([rest(slice(middle)), rest(slice(middle, None))])


@pytest.mark.parametrize("on_visible", [False, True], ids=["dense", "visible"])
@pytest.mark.parametrize(
    ("kind", "masking"),
    [
        ("basic", lmjax.LayerMasking()),
        ("bottleneck", lmjax.LayerMasking()),
        ("grouped", lmjax.LayerMasking(padding="none")),
        ("bottleneck", lmjax.PartialConvolution()),
        ("basic", lmjax.LayerMasking(depth=1)),
        ("concatenated", lmjax.LayerMasking()),
    ],
    ids=str,
)
def test_same_logits_wherever_the_network_is_cut(kind, masking, on_visible):
    predictor, masks = random_predictor(kind, masking), jnp.asarray(random_masks(9))
    expected = quick_jit(predictor)(IMAGE, masks)
    run = quick_jit(in_two_parts, static_argnames=("seam", "on_visible"))
    for seam in (1, 2) if masking.depth == 1 else (1, 3):
        actual = run(predictor, IMAGE, masks, seam=seam, on_visible=on_visible)
        np.testing.assert_allclose(actual, expected, atol=1e-5 * np.abs(expected).max())

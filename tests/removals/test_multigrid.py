"""The harmonic solver, against SciPy's direct solution of the same equations."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import sparse
from scipy.sparse.linalg import spsolve

from lmjax.removals import visible
from lmjax.removals.multigrid import solve
from tests.support.compilations import loop_jit, quick_jit

H, W = 45, 64
RNG = np.random.default_rng(0)
IMAGE = RNG.random((H, W, 3)).astype(np.float32)


def direct(image, mask):
    """Oracle: each hidden pixel equals the weighted mean of its neighbours inside the image."""
    number = np.full(mask.shape, -1)
    number[~mask] = np.arange((~mask).sum())
    entries, right = {}, np.zeros((number.max() + 1, image.shape[-1]))
    for row, column in np.argwhere(~mask):
        me, total = number[row, column], 0
        for i, j in np.ndindex(3, 3):
            r, c = row + i - 1, column + j - 1
            if (i, j) == (1, 1) or not (0 <= r < mask.shape[0] and 0 <= c < mask.shape[1]):
                continue
            weight = 1 / 6 if i == 1 or j == 1 else 1 / 12
            total += weight
            if mask[r, c]:
                right[me] += weight * image[r, c]
            else:
                entries[me, number[r, c]] = -weight
        entries[me, me] = total
    rows, columns = np.array(list(entries)).T
    matrix = sparse.csc_matrix((list(entries.values()), (rows, columns)))
    filled = image.astype(np.float64)
    filled[~mask] = spsolve(matrix, right).reshape(len(right), -1)
    return filled


def all_but(*pixels):
    mask = np.zeros((H, W), bool)
    mask[tuple(np.transpose(pixels))] = True
    return mask


def stripes(*, hidden, period):
    """Hidden corridors of some width between visible lines, connected along one side."""
    mask = np.broadcast_to((np.arange(W) % period >= hidden)[None], (H, W)).copy()
    mask[0] = False
    return mask


LEFT = np.broadcast_to(np.arange(W) < W // 2, (H, W))
PATCHES = (RNG.random((6, 8)) < 0.4).repeat(8, 0).repeat(8, 1)[:H, :W]
MASKS = {
    "one pixel": all_but((17, 60)),
    "two corners": all_but((0, 0), (H - 1, W - 1)),
    "thin corridors": stripes(hidden=1, period=4),
    "corridors": stripes(hidden=3, period=4),
    "wide corridors": stripes(hidden=13, period=14),
    "half": LEFT,
    "patches": PATCHES,
    "single pixels": RNG.random((H, W)) < 0.5,
    "few pixels": RNG.random((H, W)) < 0.003,
    "checkerboard": np.indices((H, W)).sum(axis=0) % 2 == 0,
    "border": np.pad(np.zeros((H - 2, W - 2), bool), 1, constant_values=True),
}


@pytest.fixture(scope="module")
def filled():
    """All masks in one compiled, mapped program."""
    fill = jax.jit(jax.vmap(visible.harmonic, in_axes=(None, 0)))
    return dict(zip(MASKS, np.asarray(fill(IMAGE, np.stack(list(MASKS.values()))))))


@pytest.mark.parametrize("name", MASKS)
def test_every_pixel_is_within_the_tolerance_of_the_direct_solution(filled, name):
    mask = MASKS[name]
    expected = direct(IMAGE, mask)
    assert abs(filled[name] - expected).max() < visible.TOLERANCE
    np.testing.assert_array_equal(filled[name][mask], IMAGE[mask])


def test_noisy_linear_is_the_direct_solution_plus_the_noise_of_its_key():
    image, key = 0.3 + 0.4 * IMAGE, jax.random.key(5)
    filled = visible.noisy_linear(image, jnp.asarray(PATCHES), key)
    noise = 0.01 * jax.random.normal(key, image.shape, jnp.float32)
    expected = direct(image, PATCHES) + noise
    hidden = ~PATCHES
    assert abs(filled - expected)[hidden].max() < visible.TOLERANCE


def test_the_worst_case_at_the_size_of_imagenet_is_solved_within_the_iterations():
    """Between two opposite corners nothing is known: their resistance is the largest there is."""
    size = 224
    mask = np.zeros((size, size), bool)
    mask[0, 0] = mask[-1, -1] = True
    image = np.broadcast_to(
        np.linspace(0, 1, size, dtype=np.float32)[:, None, None], (size, size, 1)
    )
    filled = loop_jit(visible.harmonic)(image, mask)
    assert abs(filled - direct(image, mask)).max() < visible.TOLERANCE


@pytest.mark.parametrize("shape", [(1, 9), (2, 3), (7, 8)])
def test_images_of_any_size(shape):
    image = RNG.random((*shape, 2)).astype(np.float32)
    mask = RNG.random(shape) < 0.2
    mask[0, 0] = True
    mask[-1, -1] = False
    expected = direct(image, mask)
    assert abs(visible.harmonic(image, jnp.asarray(mask)) - expected).max() < visible.TOLERANCE


def test_a_variant_is_solved_the_same_whatever_else_is_in_the_batch(filled):
    alone = jax.jit(visible.harmonic)(IMAGE, MASKS["patches"])
    np.testing.assert_allclose(alone, filled["patches"], atol=2e-6)


def test_iterations_are_bounded():
    values = jnp.moveaxis(jnp.where(PATCHES[..., None], IMAGE, 0), -1, 0)
    hidden = jnp.asarray(~PATCHES)
    expected = np.moveaxis(direct(IMAGE, PATCHES), -1, 0)
    run = quick_jit(functools.partial(solve, values, hidden, tolerance=0.0))
    errors = [abs(run(max_iterations=most) - expected).max() for most in (0, 1, 3)]
    np.testing.assert_allclose(errors[0], expected[:, ~PATCHES].max(), atol=1e-6)
    assert errors[2] < errors[1] / 5 < errors[0] / 10


def test_gradients_are_those_of_the_direct_solution():
    weights = RNG.random((H, W, 3))

    def loss(image):
        return (visible.harmonic(image, jnp.asarray(PATCHES)) * weights).sum()

    gradient = np.asarray(quick_jit(jax.grad(loss))(jnp.asarray(IMAGE)))
    assert (gradient[~PATCHES] == 0).all()
    row, column = 39, np.flatnonzero(PATCHES[39] & ~PATCHES[40])[0]  # beside hidden pixels
    more = IMAGE.astype(np.float64)
    more[row, column, 1] += 0.01
    change = ((direct(more, PATCHES) - direct(IMAGE, PATCHES)) * weights).sum() / 0.01
    assert abs(change - weights[row, column, 1]) > 0.1  # more than the pixel itself
    np.testing.assert_allclose(gradient[row, column, 1], change, rtol=5e-3)

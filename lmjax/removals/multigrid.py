"""Laplace's equation on the hidden pixels of an image, visible pixels given: a multigrid solver.

Conjugate gradients, preconditioned by one V-cycle of multigrid. A coarser level has every second
row and column, between which corrections are interpolated; its equations are those of the finer
level, projected (Galerkin), so that hidden regions of any shape are right on all levels.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

_NEIGHBOURS = tuple((i, j) for i in (-1, 0, 1) for j in (-1, 0, 1) if (i, j) != (0, 0))
_COARSEST = 64  # unknowns that are solved for directly
# Of the matrix solved directly, relative to its diagonal: coarse nodes that share their only hidden
# pixel have the same equation.
_REGULARISATION = 1e-5
_ROOT_OF_RESISTANCE = 6  # never reached in images of common sizes
# Below 2, so that the smoother is a contraction for every matrix.
_DAMPING = 1.9


class Level(NamedTuple):
    """The equations of one level: nine-point stencils.

    Attributes:
      diagonal: `[1, H, W]`; 0 where a node is no unknown.
      weights: `[8, 1, H, W]`, how strongly a node is tied to each neighbour, in the order of
        `_NEIGHBOURS`; 0 where one of them is no unknown.
      smoother: `[1, H, W]`, what a residual is multiplied by for a correction.
    """

    diagonal: jax.Array
    weights: jax.Array
    smoother: jax.Array


def neighbour_weights(shape: tuple[int, ...]) -> np.ndarray:
    """Returns the weights of the 8 neighbours of each pixel, `[8, 1, H, W]`.

    1/6 for one that shares an edge, 1/12 for one that shares a corner; 0 outside the image.
    """
    inside = np.pad(np.ones(shape, np.float32), 1)[None]
    weights = [1 / 12 if i and j else 1 / 6 for i, j in _NEIGHBOURS]
    return np.stack([w * _shifted(inside, *each) for w, each in zip(weights, _NEIGHBOURS)])


def solve(
    values: jax.Array, hidden: jax.Array, *, tolerance: float, max_iterations: int
) -> jax.Array:
    """Returns values that are harmonic where hidden: weighted means of their neighbours.

    Differentiable with respect to the values.

    Args:
      values: `[C, H, W]`; where hidden, where to start from.
      hidden: `[H, W]` bool, in an image where something is visible.
      tolerance: of the solution, in the units of `values`; see `_conjugate_gradients`.
      max_iterations: at most, of conjugate gradients.
    """
    weights, hidden = neighbour_weights(hidden.shape), hidden[None]

    def laplacian(x: jax.Array) -> jax.Array:
        # In differences: sums would round to the precision of the values, not of their slopes.
        padded = _padded(x)
        terms = [w * (x - _shifted(padded, *each)) for w, each in zip(weights, _NEIGHBOURS)]
        return jnp.where(hidden, sum(terms[1:], terms[0]), 0)

    def search(matvec: Callable, residual: jax.Array) -> jax.Array:
        cycle = _v_cycle(_hierarchy(hidden, weights))
        return _conjugate_gradients(matvec, residual, cycle, tolerance, max_iterations)

    residual = -laplacian(values)
    return values + jax.lax.custom_linear_solve(laplacian, residual, search, symmetric=True)


def _conjugate_gradients(
    matvec: Callable, residual: jax.Array, precondition: Callable, tolerance: float, most: int
) -> jax.Array:
    """Solves from 0, for all channels, until the error is within the tolerance.

    With the error e and the matrix A, r z = r M r is about e A e, since the V-cycle M is about the
    inverse of A. An error at one pixel is at most sqrt(e A e) times the square root of the
    resistance between the pixel and what is visible: 4.8 from one corner of 224 x 224 pixels to the
    opposite one, the worst case there, and about 0.3 more with each doubling of the size.
    """
    target = (tolerance / _ROOT_OF_RESISTANCE) ** 2

    def dot(x, y):
        return jnp.sum(x * y, axis=(1, 2), keepdims=True)

    def going_on(state):
        *_, energy, count = state
        return (energy > target).any() & (count < most)

    def step(state):
        solution, residual, direction, before, count = state
        correction = precondition(residual)
        energy = dot(residual, correction)
        direction = correction + _ratio(energy, before) * direction
        product = matvec(direction)
        length = _ratio(energy, dot(direction, product))
        solution, residual = solution + length * direction, residual - length * product
        return solution, residual, direction, energy, count + 1

    nothing = jnp.zeros_like(residual)
    start = nothing, residual, nothing, jnp.full_like(residual[:, :1, :1], jnp.inf), 0
    return jax.lax.while_loop(going_on, step, start)[0]


def _ratio(numerator: jax.Array, denominator: jax.Array) -> jax.Array:
    """Returns the ratio, 0 where the denominator is 0: channels that are solved already."""
    return jnp.where(denominator > 0, numerator / jnp.where(denominator > 0, denominator, 1), 0)


def _hierarchy(hidden: jax.Array, weights: np.ndarray) -> list[Level]:
    """Returns the levels, finest first."""
    padded = _padded(hidden)
    tied = jnp.stack([hidden & _shifted(padded, *each) for each in _NEIGHBOURS])
    levels = [_level(jnp.where(hidden, weights.sum(axis=0), 0), jnp.where(tied, weights, 0))]
    while len(levels) == 1 or levels[-1].diagonal.size > _COARSEST:
        # XLA would fuse a level into the next ones, and compute it again for each.
        levels[-1] = jax.lax.optimization_barrier(levels[-1])
        levels.append(_coarser(levels[-1]))
    return levels


def _level(diagonal: jax.Array, weights: jax.Array) -> Level:
    ones, magnitudes = jnp.ones_like(diagonal), diagonal + jnp.abs(weights).sum(axis=0)
    smoother = jnp.minimum(_ratio(ones, diagonal), _ratio(_DAMPING * ones, magnitudes))
    return Level(diagonal, weights, smoother)


def _coarser(level: Level) -> Level:
    """Projects equations: of interpolated values, those at nodes added up with the same weights.

    One convolution, since the weights are the same at every node, and entries of nodes that are no
    unknowns are 0.
    """
    entries = jnp.concatenate([level.diagonal[None], -level.weights])[:, 0]
    padding = [(1, 2 * (n // 2 + 1) - n) for n in entries.shape[1:]]
    projected = jax.lax.conv_general_dilated(
        entries[None], _projection(), (2, 2), padding, precision=jax.lax.Precision.HIGHEST
    )[0]
    return _level(projected[:1], -projected[1:, None])


@functools.cache
def _projection() -> Any:
    """Returns the coarse entries of a node, `[9, 9, 3, 3]`: by the fine entries of nodes around it.

    A fine node at `here` from the coarse one has the share `_share(here)` of it, and its neighbour
    at `here + fine` has a share of the coarse node at `coarse`, two fine steps each.
    """
    offsets = np.array([(0, 0), *_NEIGHBOURS])
    kernel = np.zeros((9, 9, 3, 3), np.float32)
    for to, fine, i, j in np.ndindex(kernel.shape):
        here = np.array([i - 1, j - 1])
        there = here + offsets[fine] - 2 * offsets[to]
        kernel[to, fine, i, j] = _share(here) * _share(there)
    return kernel


def _share(offset: np.ndarray) -> float:
    """Returns the weight of a coarse node in a fine one that is an offset of fine steps away."""
    return float(np.prod(np.maximum(1 - np.abs(offset) / 2, 0)))


def _apply(level: Level, x: jax.Array) -> jax.Array:
    """Multiplies the matrix by `x` `[C, H, W]`, which is 0 where there is no unknown."""
    # XLA would compute `x` again for each of its neighbours.
    padded = _padded(jax.lax.optimization_barrier(x))
    result = level.diagonal * x
    for weight, each in zip(level.weights, _NEIGHBOURS):
        result -= weight * _shifted(padded, *each)
    return result


def _v_cycle(levels: Sequence[Level]) -> Callable[[jax.Array], jax.Array]:
    """Returns the function residual -> correction, which is symmetric."""
    solve_coarsest = _direct(levels[-1])

    def cycle(residual: jax.Array, depth: int = 0) -> jax.Array:
        if depth == len(levels) - 1:
            return solve_coarsest(residual)
        level = levels[depth]
        x = level.smoother * residual
        coarse = _restrict(residual - _apply(level, x), level)
        x = x + _prolong(cycle(coarse, depth + 1), level)
        return x + level.smoother * (residual - _apply(level, x))

    return cycle


def _direct(level: Level) -> Callable[[jax.Array], jax.Array]:
    """Returns the function residual -> solution."""
    height, width = level.diagonal.shape[1:]
    row, column = (each.reshape(-1) for each in np.indices((height, width)))
    others = [(row + i, column + j) for i, j in _NEIGHBOURS]
    inside = np.stack([_inside(i, height) & _inside(j, width) for i, j in others])
    which, node = np.nonzero(inside)
    other = np.stack([i * width + j for i, j in others])[inside]
    diagonal = level.diagonal.reshape(-1) * (1 + _REGULARISATION)
    matrix = jnp.diag(jnp.where(diagonal > 0, diagonal, 1))
    matrix = matrix.at[node, other].set(-level.weights.reshape(8, -1)[which, node])
    inverse = _inverse(matrix)

    def solve(residual: jax.Array) -> jax.Array:
        flat = residual.reshape(len(residual), -1)
        return jnp.matmul(flat, inverse, precision="highest").reshape(residual.shape)

    return solve


def _inverse(matrix: jax.Array) -> jax.Array:
    """Inverts a small symmetric positive definite matrix, by Gauss-Jordan elimination.

    LAPACK's solvers wait for other threads of XLA's pool on a CPU: on as many devices as cores, all
    of them wait and the process hangs (jaxlib 0.10).
    """

    def eliminate(k: jax.Array, a: jax.Array) -> jax.Array:
        here, pivot = jnp.arange(len(a)) == k, a[k, k]
        row, column = a[k] / pivot, a[:, k]
        a = jnp.where(here[:, None], row[None], a - column[:, None] * row[None])
        return jnp.where(here[None], jnp.where(here, 1, -column)[:, None] / pivot, a)

    inverse = jax.lax.fori_loop(0, len(matrix), eliminate, matrix)
    return (inverse + inverse.T) / 2


def _prolong(x: jax.Array, level: Level) -> jax.Array:
    """Interpolates coarse values linearly, where the finer level has unknowns."""
    height, width = level.diagonal.shape[1:]
    return jnp.where(level.diagonal > 0, _doubled(_doubled(x, 1, height), 2, width), 0)


def _restrict(x: jax.Array, level: Level) -> jax.Array:
    """Applies the transpose of `_prolong` to `x` that is 0 where there is no unknown."""
    x = jnp.where(level.diagonal > 0, x, 0)
    return _halved(_halved(x, 1), 2)


def _doubled(x: jax.Array, axis: int, size: int) -> jax.Array:
    """Returns values at the positions of `x` and halfway between, `size` of them along `axis`."""
    following = jnp.concatenate(
        [_part(x, axis, 1, None), jnp.zeros_like(_part(x, axis, 0, 1))], axis
    )
    both = jnp.stack([x, (x + following) / 2], axis + 1)
    shape = list(x.shape)
    shape[axis] *= 2
    return _part(both.reshape(shape), axis, 0, size)


def _halved(x: jax.Array, axis: int) -> jax.Array:
    """Applies the transpose of `_doubled`."""
    half = x.shape[axis] // 2 + 1
    padding = [(0, 0)] * x.ndim
    padding[axis] = (1, 2 * half - x.shape[axis])
    x = jnp.pad(x, padding)
    before, here, after = (
        jax.lax.slice_in_dim(x, i, i + 2 * half - 1, 2, axis=axis) for i in range(3)
    )
    return here + (before + after) / 2


def _part(x: jax.Array, axis: int, start: int, stop: int | None) -> jax.Array:
    return jax.lax.slice_in_dim(x, start, stop, axis=axis)


def _inside(index: np.ndarray, size: int) -> np.ndarray:
    return (index >= 0) & (index < size)


def _padded(x: jax.Array) -> jax.Array:
    return jnp.pad(x, ((0, 0), (1, 1), (1, 1)))


def _shifted(padded, i: int, j: int):
    """Returns the neighbours at (i, j), of an array padded by 1 in its last two axes."""
    height, width = (n - 2 for n in padded.shape[-2:])
    return padded[..., 1 + i : 1 + i + height, 1 + j : 1 + j + width]

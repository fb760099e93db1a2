"""Predictors that call LAPACK, and so hang on several devices of a CPU.

LAPACK's solvers wait in a thread of XLA's pool for other threads of it. Where as many devices of a
CPU as the pool has threads do so at once, they wait for ever (seen with jaxlib 0.10).
"""

import functools
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from lmjax._utils.jaxprs import primitives
from lmjax._utils.notices import warn
from lmjax._utils.sharding import mesh_of

LAPACK = {
    *("cholesky", "cholesky_update", "triangular_solve", "lu", "qr", "geqrf", "geqp3"),
    *("householder_product", "eig", "eigh", "svd", "schur", "hessenberg", "tridiagonal"),
    *("tridiagonal_solve", "ormqr"),
}


def without_hanging(mesh: Mesh, static: Any, arrays: Any, images: Any, shape: tuple) -> Mesh:
    """Returns the mesh, or its first device alone where the predictor would hang on all of them.

    Args:
      mesh: the devices.
      static: of a job; `static.predictor(arrays)` is the predictor.
      arrays: of the predictor.
      images: one, or where `static.many` several, with a leading axis.
      shape: (H, W) of its masks.
    """
    first = mesh.devices.flat[0]
    if mesh.size == 1 or first.platform != "cpu":
        return mesh
    image = jax.tree.map(functools.partial(_aval, first_axis=int(static.many)), images)
    avals, tree = jax.tree.flatten((jax.tree.map(_aval, arrays), image))
    if not _calls_lapack(static, tree, tuple(avals), shape):
        return mesh
    warn(
        "lapack",
        "the predictor calls LAPACK (such as jnp.linalg.solve), which can hang on several devices "
        "of a CPU: it is evaluated on one",
        stacklevel=5,
    )
    return mesh_of([first])


@functools.lru_cache(maxsize=64)
def _calls_lapack(static: Any, tree: Any, avals: tuple, shape: tuple[int, int]) -> bool:
    """Returns whether a predictor, traced for arrays and an image of these shapes, calls LAPACK."""
    arrays, image = jax.tree.unflatten(tree, avals)
    masks = jax.ShapeDtypeStruct((2, *shape), bool)

    def logits(arrays: Any, image: Any, masks: jax.Array) -> Any:
        return static.predictor(arrays)(image, masks)

    try:
        traced = jax.make_jaxpr(logits)(arrays, image, masks)
    except Exception:
        return False
    return not LAPACK.isdisjoint(primitives(traced.jaxpr))


def _aval(x: Any, first_axis: int = 0) -> jax.ShapeDtypeStruct:
    """Returns shape and type of an array, without the axes before the first."""
    dtype = x.dtype if hasattr(x, "dtype") else np.result_type(x)
    return jax.ShapeDtypeStruct(np.shape(x)[first_axis:], dtype)

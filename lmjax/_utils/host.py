"""Functions that are not JAX, called on the host from inside compiled programs.

`jax.pure_callback` would do, but for one thing: it puts the arguments on a device first, which
takes a thread of the pool that the program itself occupies. On a machine with one core, or with as
many programs as cores, such a call never returns. The primitive here hands over NumPy arrays as
they arrive. (It uses `jax.interpreters.mlir.emit_python_callback`, as `jax.experimental.sparse`
does.)
"""

import collections
import contextlib
from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
import numpy as np
from jax import core
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

_host_p = Primitive("lmjax_host_call")


def call_batch(function: Callable, shape: tuple[int, ...], *arrays: jax.Array) -> jax.Array:
    """Returns `function(*arrays)`, called on the host with NumPy arrays.

    Runs under `jit` and on several devices; under `vmap` the mapped axis and the leading axis
    become one, so that the function is called once. It has no gradient.

    Args:
      function: of NumPy arrays `[N, ...]`, which it may keep and change, to float32
        `[N, *shape]`. It must be pure, and hashable.
      shape: of one result.
      *arrays: `[N, ...]`, at least one.
    """
    return _host_p.bind(*map(jnp.asarray, arrays), function=function, shape=shape)


def _run(function: Callable, arrays) -> np.ndarray:
    try:
        return function(*(np.array(each) for each in arrays))  # copies: the program owns the memory
    except BaseException as error:  # a keyboard interrupt too
        _failures.append(error)
        raise


# The last error that a function on the host raised: compiled programs hand on nothing but its text.
_failures: collections.deque[BaseException] = collections.deque(maxlen=1)


@contextlib.contextmanager
def original_errors() -> Iterator[None]:
    """Raises the error of a function on the host itself, where a compiled program quotes it."""
    try:
        yield
    except (jax.errors.JaxRuntimeError, ValueError) as error:  # JAX raises either
        raised = _failures.pop() if _failures else None
        if raised is None or f"{type(raised).__name__}: {raised}" not in str(error):
            raise
        raise raised from raised.__cause__


@_host_p.def_impl
def _eager(*arrays, function, shape):
    with jax.disable_jit(False):  # else the call below would come here again
        return jax.jit(call_batch, static_argnums=(0, 1))(function, shape, *arrays)


@_host_p.def_abstract_eval
def _abstract(*arrays, function, shape):
    return core.ShapedArray((arrays[0].shape[0], *shape), jnp.float32)


def _lower(context, *arrays, function, shape):
    results, _, _ = mlir.emit_python_callback(
        context,
        lambda *values: (_run(function, values),),
        None,
        list(arrays),
        context.avals_in,
        context.avals_out,
        has_side_effect=False,
        returns_token=False,
    )
    return results


def _batch(arrays, axes, *, function, shape):
    size = next(x.shape[axis] for x, axis in zip(arrays, axes) if axis is not None)
    whole = [batching.bdim_at_front(x, axis, size) for x, axis in zip(arrays, axes)]
    flat = (x.reshape(-1, *x.shape[2:]) for x in whole)
    results = call_batch(function, shape, *flat)
    return results.reshape(size, -1, *shape), 0


def _no_gradient(*_, **__):
    raise ValueError(
        "gradients do not pass through lmjax.black_box(...): JAX cannot see inside the function; "
        "take a method that only evaluates it, such as lmjax.attribution.lime"
    )


mlir.register_lowering(_host_p, _lower, cacheable=False)
batching.primitive_batchers[_host_p] = _batch
ad.primitive_jvps[_host_p] = _no_gradient


@contextlib.contextmanager
def suggests_black_box(subject: str) -> Iterator[None]:
    """Raises an error that names `lmjax.black_box` where JAX cannot trace a function.

    Args:
      subject: the function in the error, such as "predictor".

    Raises:
      ValueError: in the place of an error that a function of NumPy, torch or the like raises when
        it is given a JAX tracer. Other errors pass.
    """
    try:
        yield
    except (TypeError, AttributeError, RuntimeError) as error:
        # JAX's own errors are TypeErrors; those of other libraries are recognised by their text.
        about_tracers = "tracer" in f"{type(error).__name__} {error}".lower()
        if isinstance(error, jax.errors.UnexpectedTracerError) or not about_tracers:
            raise
        raise ValueError(
            f"{subject} is not a function that JAX can trace "
            f"({type(error).__name__}: {str(error).splitlines()[0]}); write it with jax.numpy, or "
            "wrap the part that is not JAX, such as a network or a fill in NumPy or torch: "
            "lmjax.black_box(function)"
        ) from error

"""Arrays, masks, segments, keys and options that are given to the public functions."""

import inspect
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from tests.fuzz.harness import STRANGE_NUMBERS, STRANGE_TEXT, pick, strange
from tests.support import public_calls
from tests.support.public_calls import Call

_LEFT_OUT = {
    *("make(telea)", "make(navier_stokes)", "make(biharmonic)", "explain"),
    *("attribute", "numbered"),  # their arguments are checked by what they call
    "new_name",  # returns what is no old name as it is
}
_COMPILED = {"masking.layer_mask", "masking.neighbor_padding", "evaluation.Predictor"}
_COMPILED |= {"attribution.stable_ranking"}  # standard errors may be infinite
"""Functions whose numbers are not known where they run; NaN goes through them."""
# What networks are given, and what arguments are called in errors.
_NOT_CHANGED = {"predictor", "options", "settings", "params", "argument"}
_INTERNAL = {"masking.layers", "masking.windows", "training"}
"""Modules whose functions networks call in compiled programs, where values are not known."""


def _calls() -> list[tuple[str, Call]]:
    return [
        (f"{module}.{name}", each)
        for module in public_calls.MODULES
        if module not in _INTERNAL
        for name, each in public_calls.calls(module).items()
        if name not in _LEFT_OUT
    ]


def attempt(rng: np.random.Generator, folder: Path) -> str:
    name, call = pick(rng, _calls())
    changed = _changed(rng, call)
    shown = f"{name}({', '.join(f'{k}={_brief(v)}' for k, v in changed.items())})"
    try:
        found = call(**changed)
    except Exception as error:
        error.add_note(shown)
        raise
    given = {**call.arguments, **changed}
    if "segments" in given:  # they are in the place of squares, whose size is not looked at
        given = {name: value for name, value in given.items() if name not in ("grid", "size")}
    if name == "segments.even_grid":  # where it only names the argument in errors
        given = {each: value for each, value in given.items() if each != "name"}
    if name.startswith("removals."):  # most look at no segments, and NaN may be hidden
        given = {each: value for each, value in given.items() if each not in ("segments", "image")}
    if name in ("evaluation.Evaluator.images", "lmjax.evaluate"):  # NaN shown is refused
        given = {each: value for each, value in given.items() if each not in ("images", "image")}
    wrong = "" if name in _COMPILED else _wrong(found, list(given.values()))
    if rng.random() < 0.1 and not wrong and not _same(found, call(**changed)):
        wrong = "another answer when called again"
    if wrong:
        raise AssertionError(f"{wrong}: {shown}")
    return "answer"


def _changed(rng: np.random.Generator, call: Call) -> dict[str, Any]:
    """One argument or two, changed."""
    names = list(inspect.signature(call.function).parameters)
    names = [name for name in names if name not in _NOT_CHANGED]
    if not names:
        return {}
    chosen = {pick(rng, names) for _ in range(pick(rng, (1, 1, 1, 2)))}
    defaults = inspect.signature(call.function).parameters
    return {
        name: change(rng, call.arguments.get(name, defaults[name].default))
        for name in sorted(chosen)
    }


def change(rng: np.random.Generator, value: Any) -> Any:
    """Returns a value in the place of another, which may do or not."""
    if rng.random() < 0.12:
        return strange(rng)
    if isinstance(value, jax.Array) and jnp.issubdtype(value.dtype, jax.dtypes.prng_key):
        keys = jax.random.PRNGKey(3), jax.random.split(value, 2), np.zeros(2, np.uint32), 0
        return pick(rng, (*keys, jax.random.key(5), jax.random.key(1, impl="rbg")))
    if isinstance(value, np.ndarray | jax.Array):
        return _other_array(rng, np.asarray(value))
    if isinstance(value, str):
        return pick(rng, (value, value.upper(), value[:-1], *STRANGE_TEXT))
    if isinstance(value, tuple | list):
        others = (list(value), value[:-1], value * 2, [*value, None], np.array(value, object))
        return pick(rng, (*others, [change(rng, each) for each in value], set(range(3))))
    if isinstance(value, bool):
        return pick(rng, (not value, np.bool_(value), 1, "yes"))
    if isinstance(value, int | float):
        near = (value + 1, value - 1, value * 3, np.int64(value), np.float32(value), str(value))
        return pick(rng, (*near, np.array([value]), *STRANGE_NUMBERS))
    return strange(rng) if rng.random() < 0.5 else pick(rng, STRANGE_NUMBERS[:12])


def _other_array(rng: np.random.Generator, array: np.ndarray) -> Any:
    array = array.copy()
    at = tuple(int(rng.integers(n)) for n in array.shape) if array.size else ()
    kinds = (np.float64, np.float16, np.int64, np.uint8, bool, complex, object, str, np.int8)
    how = int(rng.integers(14))
    if how == 0:
        return array[None]
    if how == 1 and array.ndim:
        return array[0]
    if how == 2:
        return array.T
    if how == 3 and array.ndim:
        axis = int(rng.integers(array.ndim))
        return np.take(array, range(int(rng.integers(array.shape[axis]))), axis=axis)
    if how == 4 and array.ndim:
        return np.repeat(array, 2, axis=int(rng.integers(array.ndim)))
    if how == 5:
        return array.astype(pick(rng, kinds))
    if how == 6 and array.dtype.kind == "f" and array.size:
        array[at] = pick(rng, (np.nan, np.inf, -np.inf))
        return array
    if how == 7 and array.dtype.kind in "fiu":
        return array * array.dtype.type(pick(rng, (0, -1, 2, 100)))
    if how == 8 and array.dtype.kind == "f":
        return array * np.float32(pick(rng, (1e30, 1e-30, 1e38)))
    if how == 9:
        return array.astype(np.float32) * 0.5 if array.dtype.kind in "fiub" else array
    if how == 10:
        return array.tolist()
    if how == 11:
        return jnp.asarray(array)
    if how == 12 and array.dtype.kind in "iu" and array.size:
        array[at] = pick(rng, (-1, 2**31 - 1 if array.itemsize > 1 else 255, 100))
        return array
    return np.full_like(array, array.flat[0]) if array.size else array


def _leaves(found: Any) -> list[np.ndarray]:
    if hasattr(found, "__dataclass_fields__"):
        found = [getattr(found, name) for name in found.__dataclass_fields__]
    leaves = jax.tree.leaves(found)
    leaves = [each for each in leaves if isinstance(each, np.ndarray | jax.Array | float)]
    return [np.asarray(each) for each in leaves if not _is_key(each)]


def _is_key(value: Any) -> bool:
    return isinstance(value, jax.Array) and jnp.issubdtype(value.dtype, jax.dtypes.prng_key)


def _wrong(found: Any, given: list[Any]) -> str | None:
    """Returns what is wrong with an answer: NaN that was given, or infinity."""
    bad = any(_not_finite(each) for each in given)
    infinite = [each for each in _leaves(found) if each.dtype.kind == "f" and np.isinf(each).any()]
    if bad:
        return "NaN or infinity was taken"
    return "an infinite answer" if infinite else None


def _not_finite(value: Any) -> bool:
    if value is None or isinstance(value, str):
        return False
    if isinstance(value, list | tuple):  # in which None stands for what is chosen
        value = [each for each in value if each is not None]
    try:
        return not np.isfinite(np.asarray(value, np.float64)).all()
    except (TypeError, ValueError, OverflowError):
        return False


def _same(first: Any, second: Any) -> bool:
    pairs = zip(_leaves(first), _leaves(second), strict=True)
    return all(np.array_equal(one, other, equal_nan=one.dtype.kind == "f") for one, other in pairs)


def _brief(value: Any) -> str:
    if isinstance(value, np.ndarray | jax.Array):
        return f"{type(value).__name__} {value.dtype}{list(value.shape)}"
    return repr(value)[:80]

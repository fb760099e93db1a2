"""Functions of one image that take several: a call for each, their variants in one pool."""

import functools
import inspect
import typing
from collections.abc import Callable, Generator, Mapping, Sequence
from typing import Any, ParamSpec, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from lmjax._utils.notices import said_once
from lmjax._utils.progress import progress_bar
from lmjax._utils.summary import summarize
from lmjax.evaluation.requests import Asking, answered, answered_together, of_image

P = ParamSpec("P")
R = TypeVar("R")

# Images that are under way at a time: their requests, and logits of all their variants, are kept.
_TOGETHER = 32
_OWN = ("image", "heatmap", "previous")  # arguments that several images cannot share


@typing.overload
def over_images(function: Callable[P, Asking[R]]) -> Callable[P, R]: ...


@typing.overload
def over_images(function: Callable[P, R]) -> Callable[P, R]: ...


def over_images(function: Callable) -> Callable:
    """Makes a function of an image take images `[B, H, W, C]` as well, and return a list for them.

    The result for images is what calls with each of them would return. The image, `heatmap`,
    `previous`, and `target` where it is a sequence, have an entry for each image; `segments`,
    `masks`, `baseline` and `key` are shared, or have an entry for each image. Other arguments are
    shared.

    Args:
      function: with an argument `image`. One that is declared to return `Asking`
        (`lmjax.evaluation.requests`) has its variants evaluated as one pool; any other is called
        for each image.
    """
    signature = inspect.signature(function)
    returned = signature.return_annotation
    asks = typing.get_origin(returned) is Generator

    def one(*args: Any, **kwargs: Any) -> Any:
        return answered(function(*args, **kwargs)) if asks else function(*args, **kwargs)

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        try:
            arguments = signature.bind(*args, **kwargs).arguments
        except TypeError:
            return one(*args, **kwargs)  # which names itself in the error
        if not _are_several(arguments["image"]):
            return one(*args, **kwargs)
        return _each(function, _split(arguments), together=_TOGETHER if asks else None)

    if asks:
        returned = signature.replace(return_annotation=typing.get_args(returned)[-1])
        call.__signature__ = returned  # type: ignore[attr-defined]
    call.asking = function  # type: ignore[attr-defined]
    return call


def asking_of(function: Callable) -> Callable[..., Asking[Any]]:
    """Returns the generator of requests that `over_images` made a function of."""
    return getattr(function, "asking")  # noqa: B009  # no type knows it


def _are_several(image: Any) -> bool:
    """Returns whether an argument `image` holds several images."""
    if isinstance(image, list | tuple):
        return len(image) > 0 and all(np.ndim(each) == 3 for each in image)
    return getattr(image, "ndim", None) == 4


def _each(function: Callable, calls: list[dict[str, Any]], together: int | None) -> list[Any]:
    """Runs a function on each image, or as a generator on some images together."""
    results, step = [], together or 1
    shown = getattr(calls[0].get("predictor"), "progress", None)  # as an evaluator wants it
    options = {"worth_it": len(calls) > step, "delay": 0 if shown else 1}
    with said_once(), progress_bar(shown, total=len(calls), unit=" images", **options) as bar:
        for start in range(0, len(calls), step):
            some = dict(enumerate(calls[start : start + step], start))
            if together:
                starts = {i: functools.partial(function, **each) for i, each in some.items()}
                results += answered_together(starts)
            else:
                with of_image(start):
                    results.append(function(**some[start]))
            bar.update(len(some))
    return results


def _split(arguments: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Returns the arguments of each image's call."""
    number = len(arguments["image"])
    if number == 0:
        raise ValueError("image must hold at least one image, got none")
    entries = {name: _entries(name, value, number) for name, value in arguments.items()}
    return [{name: entries[name][i] for name in entries} for i in range(number)]


def _entries(name: str, value: Any, number: int) -> Sequence[Any]:
    """Returns an argument's value for each of `number` images, or raises ValueError."""
    if not _has_entries(name, value):
        return [value] * number
    try:
        length = len(value)
    except TypeError:
        length = None
    if length != number:
        got = summarize(value) if length is None else f"{length} entries"
        raise ValueError(f"{name} must have an entry for each of the {number} images, got {got}")
    return value


def _has_entries(name: str, value: Any) -> bool:
    """Returns whether an argument has an entry for each image."""
    if value is None or name in _OWN:
        return value is not None
    if name == "key" and isinstance(value, jax.Array | np.ndarray):
        return value.ndim == (1 if jnp.issubdtype(value.dtype, jax.dtypes.prng_key) else 2)
    if isinstance(value, list | tuple):
        return name in ("target", "segments", "masks")
    axes = {"target": 0, "segments": 2, "masks": 3, "baseline": 3}  # of one image's
    return getattr(value, "ndim", None) == axes.get(name, -2) + 1

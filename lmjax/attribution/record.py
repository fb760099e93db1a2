"""Records of how results were made: method, network, removal, settings, key and versions."""

import dataclasses
import functools
import inspect
from collections.abc import Callable, Generator, Mapping
from typing import Any, ParamSpec, TypeVar

import jax
import numpy as np

from lmjax._utils.summary import brief
from lmjax.evaluation.evaluator import as_predictor
from lmjax.evaluation.requests import Asking

P = ParamSpec("P")
R = TypeVar("R")
_NOT_SETTINGS = ("predictor", "features", "head", "image", "key", "previous")


@dataclasses.dataclass(frozen=True, eq=False)
class Record:
    """How a result was made, for files and tables.

    Records are all equal: results with different ones have the same structure as pytrees, so that
    `jax.tree.map` goes through both.

    Attributes:
      method: name of the function.
      network: description of the classifier, or of the predictor that is a function.
      removal: description of the removal; empty where there is none.
      settings: options of the call by name; arrays and functions as short descriptions.
      key: data of the random key, or None.
      versions: of lmjax and of what it computes with.
    """

    method: str
    network: str
    removal: str
    settings: Mapping[str, Any]
    key: tuple[int, ...] | None
    versions: Mapping[str, str]

    @property
    def columns(self) -> dict[str, str]:
        """Columns that tell the rows of several results apart in one table."""
        return {"method": self.method, "network": self.network, "removal": self.removal}

    @classmethod
    def from_json(cls, found: Mapping[str, Any] | None) -> "Record | None":
        """Makes a record of what a file holds; None where there is none."""
        return None if found is None else cls(**{**found, "key": tuples(found["key"])})

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Record)

    def __hash__(self) -> int:
        return hash(Record)


def tuples(value: Any) -> Any:
    """Returns lists, which JSON makes of tuples, as tuples."""
    return tuple(map(tuples, value)) if isinstance(value, list) else value


def recorded(function: Callable[P, R]) -> Callable[P, R]:
    """Makes a function, or a generator of requests, note in its result's `record` its call."""
    signature = inspect.signature(function)

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        result: Any = function(*args, **kwargs)
        bound = signature.bind(*args, **kwargs)
        bound.apply_defaults()
        if isinstance(result, Generator):
            return _recorded_later(result, function.__name__, bound.arguments)
        return dataclasses.replace(result, record=_record(function.__name__, bound.arguments))

    return call


def _recorded_later(asking: Asking[Any], method: str, arguments: Mapping[str, Any]) -> Any:
    """Runs a method that asks for variants, and notes in its result how it was called."""
    result = yield from asking
    return dataclasses.replace(result, record=_record(method, arguments))


def _record(method: str, arguments: Mapping[str, Any]) -> Record:
    from lmjax import __version__

    predictor: Any = as_predictor(arguments.get("predictor", arguments.get("features")))
    key = arguments.get("key")
    return Record(
        method=method,
        network=brief(getattr(predictor, "classifier", predictor), most=180),
        removal=brief(predictor.removal) if hasattr(predictor, "removal") else "",
        settings={
            name: _setting(value) for name, value in arguments.items() if name not in _NOT_SETTINGS
        },
        key=None if key is None else tuple(np.ravel(jax.random.key_data(key)).tolist()),
        versions={"lmjax": __version__, "jax": jax.__version__, "numpy": np.__version__},
    )


def _setting(value: Any) -> Any:
    """Returns a setting as JSON."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, tuple | list | range):
        return [_setting(each) for each in value]
    return value.item() if isinstance(value, np.generic) else brief(value)

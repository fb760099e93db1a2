"""Files of results, which hold all there is, the samples to go on with included.

Fields of a result that are static in JAX are in the header, all others are arrays.
"""

import dataclasses
import os
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from lmjax._utils import array_file
from lmjax.attribution.record import Record, tuples
from lmjax.attribution.rise import Sums
from lmjax.attribution.sampling import Samples
from lmjax.attribution.saved import Saved

R = TypeVar("R", bound=Saved)

_SAMPLES = ("values", "whole", "key_data")
_COUNTED = ("draws", "count", "settings")


def write(result: Any, path: str | os.PathLike) -> Path:
    """Writes a result; see `Saved.save`."""
    arrays, values = ({n: getattr(result, n) for n in names} for names in _fields(type(result)))
    header = {**values, "record": result.record and dataclasses.asdict(result.record)}
    samples = getattr(result, "samples", None)
    if samples is not None:
        header["samples"] = {name: getattr(samples, name) for name in _COUNTED}
        arrays |= {f"samples.{name}": getattr(samples, name) for name in _SAMPLES}
        sums = {} if samples.sums is None else samples.sums._asdict()
        arrays |= {f"sums.{name}": value for name, value in sums.items()}
    return array_file.write(path, result.KIND, header, arrays)


def read(cls: type[R], path: str | os.PathLike) -> R:
    """Reads a result; see `Saved.load`."""
    header, arrays = array_file.read(path, cls.KIND)
    try:
        values: dict[str, Any] = {name: tuples(header[name]) for name in _fields(cls)[1]}
        values["record"] = Record.from_json(header["record"])
        if "samples" in header:
            values["samples"] = _samples(header["samples"], arrays)
        return cls(**arrays, **values)
    except (KeyError, TypeError) as error:
        raise array_file.damaged(path, cls.KIND, error) from error


def _fields(cls: Any) -> tuple[list[str], list[str]]:
    """Returns the names of a result's arrays, and of what is static beside its record."""
    fields = [each for each in dataclasses.fields(cls) if each.name not in ("samples", "record")]
    static = [each.name for each in fields if each.metadata.get("static")]
    return [each.name for each in fields if each.name not in static], static


def _samples(header: dict[str, Any], arrays: dict[str, np.ndarray]) -> Samples:
    """Takes the arrays of samples out of those of a result."""
    sums = {name: arrays.pop(f"sums.{name}") for name in Sums._fields if f"sums.{name}" in arrays}
    return Samples(
        **{name: arrays.pop(f"samples.{name}") for name in _SAMPLES},
        **{name: tuples(header[name]) for name in _COUNTED},
        sums=Sums(**sums) if sums else None,
    )

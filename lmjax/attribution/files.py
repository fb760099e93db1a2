"""Files of attributions, which hold all there is, the samples to go on with included."""

import dataclasses
import os
from pathlib import Path
from typing import Any

import numpy as np

from lmjax._utils import array_file
from lmjax.attribution.attribution import Attribution
from lmjax.attribution.record import Record, tuples
from lmjax.attribution.rise import Sums
from lmjax.attribution.sampling import Samples

_KIND = "attribution"
_ARRAYS = (
    *("scores", "probability", "predicted_probability", "segments"),
    *("standard_error", "intercept", "r2"),
)
_VALUES = ("target", "predicted_class", "num_variants")
_SAMPLES = ("values", "whole", "key_data")
_COUNTED = ("draws", "count", "settings")


def write(attribution: Attribution, path: str | os.PathLike) -> Path:
    """Writes an attribution; see `Attribution.save`."""
    arrays = {name: getattr(attribution, name) for name in _ARRAYS}
    header: dict[str, Any] = {name: getattr(attribution, name) for name in _VALUES}
    header["record"] = attribution.record and dataclasses.asdict(attribution.record)
    samples = attribution.samples
    if samples is not None:
        header["samples"] = {name: getattr(samples, name) for name in _COUNTED}
        arrays |= {f"samples.{name}": getattr(samples, name) for name in _SAMPLES}
        sums = {} if samples.sums is None else samples.sums._asdict()
        arrays |= {f"sums.{name}": value for name, value in sums.items()}
    return array_file.write(path, _KIND, header, arrays)


def read(path: str | os.PathLike) -> Attribution:
    """Reads an attribution; see `Attribution.load`."""
    header, arrays = array_file.read(path, _KIND)
    try:
        return Attribution(
            **{name: arrays.get(name) for name in _ARRAYS},
            **{name: tuples(header[name]) for name in _VALUES},
            samples=_samples(header["samples"], arrays) if "samples" in header else None,
            record=Record.from_json(header["record"]),
        )
    except (KeyError, TypeError) as error:
        raise array_file.damaged(path, _KIND, error) from error


def _samples(header: dict[str, Any], arrays: dict[str, np.ndarray]) -> Samples:
    sums = {name: arrays[f"sums.{name}"] for name in Sums._fields if f"sums.{name}" in arrays}
    return Samples(
        **{name: arrays[f"samples.{name}"] for name in _SAMPLES},
        **{name: tuples(header[name]) for name in _COUNTED},
        sums=Sums(**sums) if sums else None,
    )

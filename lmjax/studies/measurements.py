"""Numbers that are measured on a machine, such as milliseconds, beside a run's rows.

Rows are the same wherever and however often they are computed; times are not. So they are stored in
a file of their own, and travel with the rows in the metadata of their table.
"""

import json
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import pyarrow as pa

from lmjax._utils.run_folder import naming_damaged, write_json
from lmjax.studies.images import ImageBatch
from lmjax.studies.run_folder import Results

_KEY = b"measured"
_REMEDY = "delete it and run again"


@runtime_checkable
class Measuring(Protocol):
    """A study that measures something on the machine, once for a run."""

    def measure(self, batch: ImageBatch) -> list[dict[str, Any]]:
        """Measures what depends on the machine, such as the time of an evaluation.

        Args:
          batch: one image of the run.

        Returns:
          Dicts of numbers and strings, which `measurements(rows)` gives back to `tables`.
        """
        ...


def path(results: Results) -> Path:
    """Returns the file that holds the measurements of a run."""
    return results.output / f"measured-{results.key}.json"


def store(results: Results, found: list[dict[str, Any]]) -> None:
    """Writes measurements, which replace those that were there."""
    write_json(path(results), found)


def beside(rows: pa.Table, results: Results) -> pa.Table:
    """Returns a run's rows with its measurements, where there are any, in the metadata."""
    file = path(results)
    if not file.exists():
        return rows
    with naming_damaged(file, _REMEDY):
        found = json.loads(file.read_text())
    return rows.replace_schema_metadata({_KEY: json.dumps(found)})


def measurements(rows: pa.Table) -> list[dict[str, Any]]:
    """Returns the measurements that a table of rows brings, as `Measuring.measure` gave them."""
    return json.loads((rows.schema.metadata or {}).get(_KEY, b"[]"))

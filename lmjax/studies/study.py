"""The protocol of studies, which is also the base class that gives its defaults."""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar, Protocol, runtime_checkable

import pyarrow as pa

from lmjax.studies.images import ImageBatch
from lmjax.studies.settings import check_fit


@runtime_checkable
@dataclasses.dataclass(frozen=True, kw_only=True)
class Study(Protocol):
    """Settings of an experiment over images, its rows, and the tables and figures made of them.

    A study is a frozen dataclass, derived from this class, whose fields are plain settings:
    numbers, strings, and tuples of them. They are its options on the command line, where the
    docstring's first line and its attributes are the help text. A class variable `about`, a
    `lmjax.studies.About`, is what reports say of it. `lmjax.studies.run` asks for the rows of one
    batch of images after the other and stores them; tables and figures are made of all rows.

    Rows must depend on the settings and on the image alone, whichever images share its batch: draw
    random numbers from `batch.keys`. A field that only tables depend on is made by
    `lmjax.studies.settings.for_tables(default)`: changing it keeps the rows of a run.

    Attributes:
      name: of the study, on the command line and in manifests.
      title: of its report.
      seed: of all random numbers.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    seed: int = 0

    def check(self, networks: Mapping[str, Any]) -> None:
        """Raises ValueError where settings do not fit the networks, before a run starts.

        By default every removal in `removals`, where the study has such a field, must be one that
        each network supports.

        Args:
          networks: classifiers by name.
        """
        check_fit(networks, getattr(self, "removals", ()))

    def rows(self, batch: ImageBatch) -> list[dict[str, Any]]:
        """Measures a batch of images.

        Args:
          batch: the images, the networks, and their logits under any removal.

        Returns:
          Rows, all with the same columns, of values that Parquet can hold. `image`, the index of
          the row's image (`sample.index`), is one of the columns; an image may have any number.

        Raises:
          ValueError: an image cannot be measured. `run` then measures the batch's images one by
            one, leaves out those that fail, and records why.
        """
        raise NotImplementedError

    def tables(self, rows: pa.Table) -> dict[str, list[dict[str, Any]]]:
        """Summarises the rows of all images.

        Args:
          rows: in the order of images.

        Returns:
          Tables by name, each a list of rows; a table without rows is left out. Columns `x`,
          `x_low` and `x_high` are an estimate and its interval (`lmjax.studies.statistics`).
        """
        raise NotImplementedError

    def figures(self, tables: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
        """Draws figures from `tables`; returns matplotlib figures by name."""
        raise NotImplementedError

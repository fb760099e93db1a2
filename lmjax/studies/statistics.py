"""Statistics of rows: groups, means, and bootstrap intervals over images."""

import csv
import functools
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lmjax._utils.atomic import atomic_write
from lmjax._utils.text import cell

RESAMPLES = 1000
CONFIDENCE = 0.95
_CLASSES = ("label", "whole_prediction", "prediction")


class Group(NamedTuple):
    """Rows that agree in some columns.

    Attributes:
      key: these columns and their values.
      columns: the other columns, `[rows]` each.
    """

    key: dict[str, Any]
    columns: dict[str, np.ndarray]

    def matrix(self, name: str, along: str) -> np.ndarray:
        """Returns a column as `[images, values of along]`, both in rising order."""
        images, steps = self.columns["image"], self.columns[along]
        order = np.lexsort((steps, images))
        return self.columns[name][order].reshape(len(np.unique(images)), -1)

    def where(self, name: str, value: Any) -> "Group":
        """Returns the group of those rows that have a value in a column."""
        chosen = self.columns[name] == value
        return Group(self.key, {column: x[chosen] for column, x in self.columns.items()})


def groups(table: pa.Table, by: Sequence[str]) -> Iterator[Group]:
    """Groups rows that agree in the columns `by`, in the order of each group's first row."""
    if table.num_rows == 0:
        return
    codes = [_codes(table.column(name)) for name in by]
    sizes = [code.max() + 1 for code in codes]
    code = np.ravel_multi_index(codes, sizes)
    others = {n: _values(table.column(n)) for n in table.column_names if n not in by}
    _, first, which = np.unique(code, return_index=True, return_inverse=True)
    rows_of = np.split(np.argsort(which, kind="stable"), np.cumsum(np.bincount(which))[:-1])
    for i in np.argsort(first):
        rows = rows_of[i]
        key = {name: table.column(name)[int(first[i])].as_py() for name in by}
        yield Group(key, {name: values[rows] for name, values in others.items()})


def mean_shares(group: Group, along: str | None = None) -> dict[str, list[float]]:
    """Returns the mean shares of pixels that are `visible` or `hidden`, and `shown`.

    Columns that rows do not have, such as those of runs before there was `shown`, are left out.

    Args:
      group: of rows.
      along: a column, for a mean at each of its values; None gives one mean of all.
    """
    names = [name for name in ("visible", "hidden", "shown") if name in group.columns]
    if along is None:
        return {name: [float(group.columns[name].mean())] for name in names}
    return {name: group.matrix(name, along).mean(axis=0).tolist() for name in names}


def _codes(column: pa.ChunkedArray) -> np.ndarray:
    """Numbers the different values of a column, `[rows]`."""
    return column.combine_chunks().dictionary_encode().indices.to_numpy(zero_copy_only=False)


def _values(column: pa.ChunkedArray) -> np.ndarray:
    """Converts a column to NumPy."""
    return column.to_numpy()


class Bootstrap:
    """Bootstrap resamples of images, the same for everything that is compared.

    Statistics have a leading axis: entry 0 is of the images themselves, the others are of the
    resamples ("draws"). So the difference of two statistics is a paired one.

    Args:
      num_images: N.
      seed: of the resamples.
    """

    def __init__(self, num_images: int, *, seed: int = 0):
        draws = np.random.default_rng(seed).integers(num_images, size=(RESAMPLES, num_images))
        counts = [np.bincount(draw, minlength=num_images) for draw in draws]
        self.counts = np.stack([np.ones(num_images), *counts])

    def means(self, values: np.ndarray) -> np.ndarray:
        """Returns `[1 + draws, ...]`, means over images of `[N, ...]` without those that are NaN.

        Of fewer than two images the draws are NaN: they do not say how images differ.
        """
        known = np.isfinite(values)
        found = self._totals(np.where(known, values, 0))
        if known.all():
            found /= len(values)
        else:
            counts = self._totals(known)
            found = np.divide(found, counts, out=np.full_like(found, np.nan), where=counts > 0)
        found[1:] = np.where(known.sum(axis=0) < 2, np.nan, found[1:])
        return found

    def _totals(self, values: np.ndarray) -> np.ndarray:
        """Returns `[1 + draws, ...]`, sums over images of `[N, ...]`."""
        return np.tensordot(self.counts, values.astype(np.float64), 1)

    def pair_means(self, values: np.ndarray) -> np.ndarray:
        """Returns `[1 + draws]`, means of symmetric `[N, N]` over all pairs of different images.

        An image that is drawn twice makes no pair with itself. Of a single pair the draws are NaN.
        """
        pairs = self.counts.sum(axis=1) ** 2 - (self.counts**2).sum(axis=1)
        off_diagonal = np.where(np.eye(len(values), dtype=bool), 0, values.astype(np.float64))
        totals = ((self.counts @ off_diagonal) * self.counts).sum(axis=1)
        found = np.divide(totals, pairs, out=np.full_like(totals, np.nan), where=pairs > 0)
        if len(values) < 3:
            found[1:] = np.nan
        return found

    def entropies(self, predictions: np.ndarray) -> np.ndarray:
        """Returns `[1 + draws, F]`, entropies in nats of the histograms of classes `[N, F]`.

        The histogram of few images has too low an entropy, and that of a resample, which repeats
        some of them, a lower one still: percentiles of such entropies lie below the estimate. So
        the draws are means of resampled jackknife pseudo-values, centred at the estimate. Their
        interval is of the entropy to expect of N images, not of all images there could be. Of one
        image they are NaN.

        References:
          Pseudo-values: Efron & Tibshirani 1993, "An Introduction to the Bootstrap", ch. 11; of an
          entropy: Zahl 1977, "Jackknifing an index of diversity", Ecology 58.
        """
        return np.stack([self._entropies(column) for column in predictions.T], axis=1)

    def _entropies(self, predictions: np.ndarray) -> np.ndarray:
        """Returns `[1 + draws]`, entropies of classes `[N]`."""
        number = len(predictions)
        _, which, counts = np.unique(predictions, return_inverse=True, return_counts=True)
        entropy = _entropy(_surprise(counts).sum(), number)
        without_one = _surprise(counts).sum() - _surprise(counts) + _surprise(counts - 1)
        entropies_without = _entropy(without_one, max(number - 1, 1))[which.reshape(-1)]
        pseudo_values = number * entropy - (number - 1) * entropies_without
        draws = entropy + self.means(pseudo_values - pseudo_values.mean())[1:]
        return np.concatenate([[entropy], np.maximum(draws, 0)])


def _surprise(counts: np.ndarray) -> np.ndarray:
    """Returns n ln n of each count; 0 of 0."""
    return counts * np.log(np.maximum(counts, 1))


def _entropy(total: np.ndarray, number: int) -> np.ndarray:
    """Returns the entropy of a histogram of `number` images, from its sum of n ln n."""
    return np.maximum(np.log(number) - total / number, 0)


@functools.lru_cache(maxsize=1)
def bootstrap(num_images: int) -> Bootstrap:
    """Returns the `Bootstrap` with seed 0, which all tables of a study share."""
    return Bootstrap(num_images)


def estimate(name: str, statistic: np.ndarray) -> dict[str, float]:
    """Returns a statistic `[1 + draws]` as three columns: its value and its 95% interval.

    Resamples for which it is not defined (NaN) are left out; where none is left, as of a single
    image, the ends of the interval are NaN.
    """
    tail = (1 - CONFIDENCE) / 2
    draws = statistic[1:][np.isfinite(statistic[1:])]
    low, high = np.quantile(draws, [tail, 1 - tail]) if len(draws) else (np.nan, np.nan)
    return interval(name, statistic[0], low, high)


def interval(name: str, value: float, low: float, high: float) -> dict[str, float]:
    """Returns a value and the ends of its interval as three columns."""
    return dict(zip((name, *ends(name)), map(float, (value, low, high)), strict=True))


def ends(name: str) -> tuple[str, str]:
    """Returns the names of the columns that hold the ends of a column's interval."""
    return f"{name}_low", f"{name}_high"


def estimated_columns(row: Mapping[str, Any]) -> list[str]:
    """Returns the names of the columns that have an interval."""
    return [name for name in row if ends(name)[0] in row]


def means(values: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Returns statistics `[1 + draws, ...]` by name: `Bootstrap.means` of values `[N, ...]`."""
    return {name: bootstrap(len(each)).means(each) for name, each in values.items()}


def estimates(statistics: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Returns statistics by name, three columns each."""
    found = {}
    for name, statistic in statistics.items():
        found |= estimate(name, statistic)
    return found


def summaries(
    found: Iterable[tuple[dict[str, Any], Mapping[str, np.ndarray]]],
) -> list[dict[str, Any]]:
    """Makes a table of means over images, three columns each.

    Where a value of some image is NaN, a further column, `NAME_images`, counts those that are not.

    Args:
      found: keys of groups, and by name values of images `[N]`.
    """
    found = list(found)
    partly = dict.fromkeys(
        name for _, values in found for name, x in values.items() if not np.isfinite(x).all()
    )
    return [
        {
            **key,
            **{f"{name}_images": int(np.isfinite(values[name]).sum()) for name in partly},
            **estimates(means(values)),
        }
        for key, values in found
    ]


def equal(column: pa.ChunkedArray, other: Any) -> pa.ChunkedArray:
    """Compares a column with a value, or with another column row by row."""
    return pc.call_function("equal", [column, other])


def number_of_classes(rows: pa.Table) -> int:
    """Returns how many classes there are at least: labels and predictions count from 0."""
    columns = [name for name in _CLASSES if name in rows.column_names]
    return 1 + max(int(pc.call_function("max", [rows.column(name)]).as_py()) for name in columns)


def where_correct(rows: pa.Table) -> pa.Table:
    """Selects the rows of images that are classified correctly when nothing is removed, if any."""
    return rows.filter(equal(rows.column("whole_prediction"), rows.column("label")))


def correctly_classified(rows: pa.Table) -> pa.Table:
    """Selects the rows of images that are classified correctly when nothing is removed.

    Raises:
      ValueError: there are none.
    """
    rows = where_correct(rows)
    if rows.num_rows == 0:
        raise ValueError("no image is classified correctly: there is no accuracy to lose")
    return rows


def ranks(values: Sequence[float]) -> list[int | None]:
    """Ranks values, 1 for the highest; None for NaN, which has no place among the others."""
    return [
        None if np.isnan(value) else 1 + sum(other > value for other in values) for value in values
    ]


def paired_differences(
    found: Iterable[tuple[dict[str, Any], Mapping[str, np.ndarray]]],
    along: str = "removal",
    *,
    of_images: bool = False,
) -> list[dict[str, Any]]:
    """Subtracts from each group the first group whose key differs in one column only.

    Args:
      found: keys of groups, and by name statistics `[1 + draws]`.
      along: the column.
      of_images: whether there are values of images `[N]` in the place of statistics. Where some are
        NaN, both sides are of the images on which both are known.

    Returns:
      Rows of differences, in which `against` is the first group's value of the column.
    """
    gained, first = [], {}
    for key, statistics in found:
        others = tuple(value for name, value in key.items() if name != along)
        against, reference = first.setdefault(others, (key[along], statistics))
        if against != key[along]:
            differences = {name: each - reference[name] for name, each in statistics.items()}
            gained.append(({**key, "against": against}, differences))
    if of_images:
        return summaries(gained)
    return [{**key, **estimates(differences)} for key, differences in gained]


def write_csv(path: str | os.PathLike, rows: Sequence[dict[str, Any]]) -> None:
    """Writes a table as text; the file appears whole or not at all.

    Columns are in the order in which rows first have them; a row without one has an empty cell.
    Text that a spreadsheet would take for a formula begins with an apostrophe.
    """
    with (
        atomic_write(path) as temporary,
        open(temporary, "w", newline="", encoding="utf-8") as file,
    ):
        names = dict.fromkeys(name for row in rows for name in row)
        writer = csv.writer(file)
        writer.writerow(map(cell, names))
        writer.writerows([cell(row.get(name)) for name in names] for row in rows)

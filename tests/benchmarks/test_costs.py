"""How cost grows, `benchmarks.costs`."""

import functools
import math

import pytest

from benchmarks import costs
from benchmarks.costs import Measured
from lmjax import studies

SMALL = costs.Sizes(
    families=("small",),
    shares=(0.5, 1.0),
    sides=(32, 64),
    variants=(2, 4),
    segments=(3, 6),
    images=(1,),
    model="small",
    at_once=2,
    samples=20,
    rounds=1,
)


@pytest.mark.usefixtures("small_networks")
@pytest.mark.parametrize("name", costs.TABLES)
def test_everything_is_measured(name, monkeypatch):
    monkeypatch.setattr(costs, "photograph", lambda side: costs_photograph(min(side, 64)))
    quick = functools.partial(studies.SegmentRemoval, segmenters=("grid",), fractions=(0.0, 0.5))
    monkeypatch.setattr(studies, "SegmentRemoval", quick)
    measured = [*costs.TABLES[name][0](SMALL)]
    ways = 2 if name == "shares" else 1
    assert [each.number for each in measured] == ways * [*getattr(SMALL, name)]
    assert all(each.seconds > 0 and each.wall > 0 for each in measured)


def costs_photograph(side):
    from benchmarks.subjects import photograph

    return photograph(side)


@pytest.mark.parametrize(("area", "slope"), [(False, 2.0), (True, 1.0)])
def test_a_slope_is_that_of_the_logarithms(area, slope):
    before, now = Measured("n", 10, 1.0, 1.0, 5), Measured("n", 20, 4.0, 3.0, 5)
    row = costs._row(now, before, "side", "a variant", area=area)
    assert math.isclose(row["slope"], slope)
    assert row["CPU ms, a variant"] == 800.0
    assert row["ms, a variant"] == 600.0
    assert costs._row(before, None, "side", "a variant", area=area)["slope"] is None


def test_a_figure_is_drawn(tmp_path):
    rows = [Measured("a", 1, 1.0, 1.0, 1), Measured("a", 10, 9.0, 9.0, 10)]
    costs._draw({"variants": rows, "shares": rows}, tmp_path / "costs.png")
    assert (tmp_path / "costs.png").stat().st_size > 1000

"""What a run would cost is what it costs: variants are counted where they are evaluated."""

import collections

import pytest

from lmjax import studies
from lmjax.cli.study import describe
from lmjax.evaluation import Evaluator
from lmjax.studies import BaselineDependence, Consistency, LimeQuality, SegmentRemoval
from lmjax.studies.images import Spending
from lmjax.studies.predictors import WholeImage
from lmjax.studies.runner import Cost
from tests.studies import fakes

UNDER = ("grey", "black")
STUDIES = [
    SegmentRemoval(removals=UNDER, grid_size=16, fractions=(0.0, 0.5, 1.0)),
    LimeQuality(removals=UNDER, evaluated_under=("grey",), num_samples=9, ks=(1, 2)),
    Consistency(removals=UNDER, redrawn=(), num_samples=9, ks=(1, 2)),
    BaselineDependence(
        removals=UNDER,
        scorers=("black",),
        rise_grids=(4,),
        rise_keeps=(0.5,),
        rise_masks=(4, 8),
        windows=(16,),
        strides=(1.0,),
        steps=3,
        region=16,
    ),
]


@pytest.fixture
def counted(monkeypatch):
    """How many variants networks were asked about, by removal."""
    found = collections.Counter()

    class Counting(Evaluator):
        def images(self, images, masks, *, image_of, **options):
            whole = isinstance(self.predictor, WholeImage)
            found["" if whole else self.predictor.removal.baseline] += len(image_of)
            return super().images(images, masks, image_of=image_of, **options)

    monkeypatch.setattr("lmjax.studies.images.Evaluator", Counting)
    return found


@pytest.mark.parametrize("study", STUDIES, ids=lambda study: study.name)
def test_evaluations_are_those_of_the_run(study, counted, tmp_path):
    given = study, fakes.Source(2)
    networks = {"a": fakes.network()}
    studies.run(*given, models=networks, output=tmp_path / "run")
    expected = dict(counted)
    cost = studies.estimate(*given, models=networks)
    found = collections.Counter()
    for each, count in cost.spending.items():
        found[each.removal] += count
    assert dict(found) == expected
    assert cost.evaluations == sum(expected.values())


def test_parts_have_their_own():
    cost = studies.estimate(STUDIES[3], fakes.Source(2), models={"a": fakes.network()})
    under_black = {e.part: n for e, n in cost.spending.items() if e.removal == "black"}
    heatmaps = 2 * 2  # of each image: RISE and occlusion, under two removals
    assert under_black == {
        **{"rise": 2 * 8, "occlusion": 2 * 4},
        **dict.fromkeys(("morf", "lerf", "deletion", "insertion"), 2 * heatmaps * 2),
        "nothing visible": 2,
    }


def test_they_are_shown():
    spending = {
        Spending("whole images", "a", ""): 5,
        Spending("rise", "a", "grey"): 1250,
        Spending("rise", "b", "layer"): 40,
    }
    assert describe(Cost(5, 1295, 3.0, spending)).splitlines() == [
        "5 images, 1295 evaluations, about 3 seconds; nothing is written",
        "evaluations  for           under  network",
        "          5  whole images         a",
        "       1250  rise          grey   a",
        "         40  rise          layer  b",
    ]

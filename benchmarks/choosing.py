r"""Which method finds what matters for how many evaluations: the tables of docs/choosing.md.

    python -m benchmarks.choosing digit-scenes --network resnet18_digits --images 12
    python -m benchmarks.choosing "$S" --network tf_efficientnet_lite0 --images 6 \
        --evaluations 200 1000

Every method explains each image twice, with two random keys, at equal budgets. Stability is
Spearman's correlation of the two maps; the pointing game and the share of positive relevance inside
the object need the source's masks; deletion, insertion and the symmetric relevance gain are taken
under removals that judge every map alike. Images are explained in one call each.
"""

import time
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
import tyro

import lmjax
from benchmarks.harness import show
from lmjax.attribution.methods import attribute, check_budget
from lmjax.data import open_source

METHODS = ("lime", "kernelshap", "permutation_shapley", "banzhaf", "rise", "hsic", "sobol")
JUDGES = ("layer", "grey", "blur")


def main(
    source: tyro.conf.Positional[str],
    *,
    network: str,
    images: int = 12,
    evaluations: tuple[int, ...] = (150, 500, 2000),
    methods: tuple[str, ...] = METHODS,
    removals: tuple[str, ...] = ("layer", "grey"),
    n_segments: int = 50,
) -> None:
    """Prints a row for each removal, method and budget.

    Args:
      source: of images with object masks, as commands write it.
      network: of the registry, with the weights that come with it.
      images: how many, from the first.
      evaluations: budgets; one that is too small for a method is left out.
      methods: that sample, and `leave_one_out`, which has a number of its own.
      removals: that explain; `JUDGES` judge.
      n_segments: of SLIC.
    """
    settings = {"source": source, "network": network, "images": images, "segments": n_segments}
    subjects = _Subjects(network, source, images, n_segments)
    show(_rows(subjects, removals, methods, evaluations), **settings)


class _Subjects:
    """Images that a network is right about, with segments and object masks."""

    def __init__(self, network: str, source: str, number: int, n_segments: int):
        self.classifier = lmjax.models.load(network)
        opened = open_source(source, length=number)
        found = [self._seen(opened[i]) for i in range(number)]
        self.images = np.stack([image for image, _ in found])
        self.objects = [mask for _, mask in found]
        self.segments = [
            lmjax.segments.slic_near(image, n_segments=n_segments) for image in self.images
        ]

    def _seen(self, item: Any) -> tuple[np.ndarray, np.ndarray]:
        """Returns an image and its mask as the network sees them."""
        preprocess = self.classifier.preprocessing
        return preprocess(item.image), preprocess.for_mask(item.object_mask)

    def evaluator(self, removal: str) -> lmjax.Evaluator:
        made = lmjax.removals.make(removal, key=jax.random.key(7), segments=self.segments[0])
        return lmjax.Evaluator(lmjax.Predictor(self.classifier, made), progress=False)


def _rows(
    subjects: _Subjects,
    removals: tuple[str, ...],
    methods: tuple[str, ...],
    evaluations: tuple[int, ...],
) -> Iterator[dict[str, Any]]:
    for removal in removals:
        for method in methods:
            for budget in evaluations:
                if _is_enough(method, budget, subjects.segments):
                    yield _row(subjects, removal, method, budget)
        yield _row(subjects, removal, "leave_one_out", None)


def _is_enough(method: str, budget: int, segmentations: list[np.ndarray]) -> bool:
    """Returns whether a method can do with a number of evaluations on every image."""
    try:
        check_budget((method,), budget, max(int(each.max()) for each in segmentations) + 1)
    except ValueError:
        return False
    return True


def _row(subjects: _Subjects, removal: str, method: str, budget: int | None) -> dict[str, Any]:
    """Explains every image twice, and judges the maps."""
    evaluator, start = subjects.evaluator(removal), time.process_time()
    given = evaluator, subjects.images, subjects.segments
    maps, spent = [], 0
    for seed in (0, 1) if budget else (0,):
        key = jax.random.key(seed)
        found = attribute(method, *given, key=key, evaluations=budget)
        maps.append([each.heatmap for each in found])
        spent += sum(each.num_variants for each in found)
    seconds = time.process_time() - start
    row = {"removal": removal, "method": method, "budget": budget or ""}
    row["ms a variant"] = 1000 * seconds / spent
    row["stability"] = _mean(map(lmjax.metrics.spearman, *maps)) if budget else ""
    return row | _localisation(subjects, maps[0]) | _judged(subjects, maps[0])


def _localisation(subjects: _Subjects, maps: list[np.ndarray]) -> dict[str, float]:
    pairs = list(zip(maps, subjects.objects))
    inside = lmjax.metrics.relevance_mass_accuracy
    return {
        "pointing": _mean(lmjax.metrics.pointing_game(*pair, tolerance=0) for pair in pairs),
        "mass inside": _mean(inside(np.maximum(heat, 0), mask) for heat, mask in pairs),
    }


def _judged(subjects: _Subjects, maps: list[np.ndarray]) -> dict[str, float]:
    given, segments = (subjects.images, maps), subjects.segments
    found = {}
    for judge in JUDGES:
        evaluator = subjects.evaluator(judge)
        gain = lmjax.metrics.symmetric_relevance_gain(evaluator, *given, segments)
        found[f"SRG {judge}"] = _mean(gain)
    for metric in (lmjax.metrics.deletion, lmjax.metrics.insertion):
        curves = metric(subjects.evaluator("layer"), *given, segments=segments)
        found[f"{metric.__name__} layer"] = _mean(each.normalised_auc for each in curves)
    return found


def _mean(values: Any) -> float:
    return float(np.nanmean(list(values)))


if __name__ == "__main__":
    tyro.cli(main)

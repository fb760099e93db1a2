"""Classes by name, and several of them explained from the same variants."""

import dataclasses
import json

import numpy as np
import pytest

import lmjax
from lmjax.explanation import ExplanationConfig
from lmjax.explanation.classes import find_class, most_probable, similar
from tests.support.any_size_network import NAMES

FAST = {"segmenter": "grid", "num_samples": 40, "removal": ("layer", "black")}
COLOURS = np.random.default_rng(0).integers(0, 256, (5, 5, 3), np.uint8)
PHOTOGRAPH = np.kron(COLOURS, np.ones((8, 12, 1), np.uint8))
pytestmark = pytest.mark.filterwarnings("ignore:40 samples for:UserWarning")


def test_names_whatever_their_capitals_and_numbers(any_size):
    assert find_class("Tiger Cat", any_size) == find_class(1, any_size) == 1
    with pytest.raises(ValueError, match=r"'cat' is no class.*did you mean tiger cat or Egyptian"):
        find_class("cat", any_size)
    with pytest.raises(ValueError, match="target must be from 0 to 3"):
        find_class("4", any_size)
    assert similar("expresso", NAMES) == ["espresso"]
    assert most_probable(np.array([1.0, 3, 2, 0]), 2) == (1, 2)


def test_numbers_are_not_names_and_names_are_told_apart_by_their_capitals(any_size):
    numbers = dataclasses.replace(any_size, class_names=("1", "2", "3", "Cardigan"))
    assert (find_class(1, numbers), find_class("1", numbers), find_class("0", numbers)) == (1, 0, 0)
    dogs = dataclasses.replace(any_size, class_names=("Cardigan", "cardigan", "crane", "crane"))
    assert (find_class("cardigan", dogs), find_class("Cardigan", dogs)) == (1, 0)
    for name in ("CARDIGAN", "crane"):
        with pytest.raises(ValueError, match=r"name of several classes: give a number, \d \("):
            find_class(name, dogs)
    for target in (1.5, True, (1, 2)):
        with pytest.raises(ValueError, match="target must be a whole number"):
            find_class(target, any_size)


@pytest.fixture(scope="module")
def explained(any_size, tmp_path_factory):
    options = FAST | {"method": ("lime", "leave_one_out")}
    output = tmp_path_factory.mktemp("explained") / "a.png"
    return lmjax.explain(PHOTOGRAPH, model=any_size, top_k=3, **options, output=output)


def test_the_most_probable_classes_are_explained_from_the_same_variants(explained, any_size):
    result = explained["lime", "black"].attribution
    assert result.scores.shape == (3, explained.segments.max() + 1)
    assert result.num_variants == 40
    assert np.all(np.diff(result.probability) <= 0)
    assert explained.targets[0] == result.predicted_class
    for index, target in enumerate(explained.targets):
        alone = lmjax.explain(PHOTOGRAPH, model=any_size, **FAST, target=target)
        expected = alone["lime", "black"].attribution.scores
        np.testing.assert_allclose(result.scores[index], expected, atol=1e-6)


def test_record_table_and_figure_name_every_class(explained):
    names = [NAMES[target] for target in explained.targets]
    record = json.loads(explained.files[2].read_text())
    assert record["target_name"] == names
    assert len(record["results"]["lime/layer"]["r2"]) == 3
    _, heading, *rows = explained.summary().splitlines()
    assert heading.split()[:2] == ["class", "probability"]
    assert len(rows) == 3 * 4
    texts = [text.get_text() for ax in explained.figure().axes for text in ax.texts]
    beside = " ".join(" ".join(text.split()) for text in texts)
    assert all(name in beside for name in names)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"top_k": 5}, "top_k must be at most 4, the number of the network's classes; got 5"),
        ({"top_k": 0}, "top_k must be a whole number, 1 or more; got 0"),
        ({"top_k": 2, "target": "espresso"}, "leave one of them out"),
        ({"target": "expresso"}, "did you mean espresso"),
        ({"show_variants": -1}, "show_variants must be a whole number from 0 to 20"),
    ],
)
def test_bad_classes(options, message, photographs, any_size):
    with pytest.raises(ValueError, match=message):
        lmjax.explain(photographs[:2], model=any_size, **FAST, **options)


def test_classes_without_names_are_counted_by_the_logits(photographs):
    def network(images):
        return images.mean((1, 2))

    box = lmjax.black_box(network)
    with pytest.raises(ValueError, match="top_k must be at most 3"):
        lmjax.explain(photographs[0], model=box, segmenter="grid", removal="black", top_k=4)
    assert ExplanationConfig(top_k=4).top_k == 4

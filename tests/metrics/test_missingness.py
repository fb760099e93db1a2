"""Missingness metrics against counting."""

import sys
from types import SimpleNamespace

import numpy as np
import pytest
import scipy.stats

from lmjax.metrics import (
    accuracy,
    class_entropy,
    class_similarity,
    unchanged_predictions,
    wordnet_similarity,
)

RNG = np.random.default_rng(0)
LABELS = RNG.integers(0, 6, 50)
PREDICTIONS = RNG.integers(0, 6, (2, 3, 50))
SIMILARITY = RNG.random((6, 6))


@pytest.mark.parametrize("metric", [accuracy, unchanged_predictions])
def test_shares_are_counted(metric):
    found = metric(PREDICTIONS, LABELS)
    assert found.shape == (2, 3)
    for place in np.ndindex(2, 3):
        hits = sum(a == b for a, b in zip(PREDICTIONS[place], LABELS))
        assert found[place] == pytest.approx(hits / 50)
        assert metric(PREDICTIONS[place], LABELS) == found[place]
    assert metric(PREDICTIONS, PREDICTIONS).min() == 1
    assert metric([1, 2, 2, 3], [1, 2, 3, 4]) == 0.5


def test_entropy_is_that_of_the_histogram_in_nats():
    found = class_entropy(PREDICTIONS)
    assert found.shape == (2, 3)
    for place in np.ndindex(2, 3):
        expected = scipy.stats.entropy(np.bincount(PREDICTIONS[place]))
        assert found[place] == pytest.approx(expected)
    assert class_entropy([3, 3, 3]) == 0
    assert class_entropy(np.arange(1000)) == pytest.approx(np.log(1000))
    assert class_entropy([0, 0, 7, 1]) == pytest.approx(0.5 * np.log(2) + 0.5 * np.log(4))


def test_similarity_is_looked_up():
    found = class_similarity(PREDICTIONS, LABELS, SIMILARITY)
    assert found.shape == (2, 3)
    for place in np.ndindex(2, 3):
        expected = np.mean([SIMILARITY[a, b] for a, b in zip(PREDICTIONS[place], LABELS)])
        assert found[place] == pytest.approx(expected)
    np.testing.assert_allclose(
        class_similarity(PREDICTIONS, LABELS, np.eye(6)), accuracy(PREDICTIONS, LABELS)
    )


def test_without_wordnet_the_error_says_how_to_get_it(monkeypatch):
    def no_corpus(part, offset):
        raise LookupError("Resource wordnet not found")

    wordnet = SimpleNamespace(synset_from_pos_and_offset=no_corpus)
    for corpus in (SimpleNamespace(wordnet=wordnet), None):
        monkeypatch.setitem(sys.modules, "nltk", SimpleNamespace())
        monkeypatch.setitem(sys.modules, "nltk.corpus", corpus)
        with pytest.raises(ImportError, match=r"lmjax\[wordnet\].*nltk\.downloader wordnet"):
            wordnet_similarity(["n01440764"])


def test_wordnet_by_hand(little_wordnet):
    """Depth is that of the longest path, from 1; the deepest is what has the longest shortest path.

    By shortest paths, dogs (object, pet, dog) are not as deep as canines.
    """
    words = ("dog", "wolf", "poodle", "toy", "cat", "car", "object")
    expected = {
        ("dog", "wolf"): 2 * 5 / (6 + 6),  # canine
        ("dog", "poodle"): 2 * 5 / (6 + 7),  # canine, not dog
        ("dog", "toy"): 2 * 5 / (6 + 8),  # canine
        ("dog", "cat"): 2 * 4 / (6 + 5),  # carnivore
        ("dog", "car"): 2 * 2 / (4 + 3),  # object, from the dog by way of the pet
        ("dog", "object"): 2 * 2 / (4 + 2),
        ("wolf", "poodle"): 2 * 5 / (6 + 7),
        ("wolf", "toy"): 2 * 5 / (6 + 8),
        ("wolf", "cat"): 2 * 4 / (6 + 5),
        ("wolf", "car"): 2 * 2 / (6 + 3),
        ("wolf", "object"): 2 * 2 / (6 + 2),
        ("poodle", "toy"): 2 * 7 / (7 + 8),  # poodle, as deep as canine by shortest paths
        ("poodle", "cat"): 2 * 4 / (7 + 5),
        ("poodle", "car"): 2 * 2 / (5 + 3),
        ("poodle", "object"): 2 * 2 / (5 + 2),
        ("toy", "cat"): 2 * 4 / (8 + 5),
        ("toy", "car"): 2 * 2 / (6 + 3),
        ("toy", "object"): 2 * 2 / (6 + 2),
        ("cat", "car"): 2 * 2 / (5 + 3),
        ("cat", "object"): 2 * 2 / (5 + 2),
        ("car", "object"): 2 * 2 / (3 + 2),
    }
    for order in (words, words[::-1]):
        found = wordnet_similarity([little_wordnet[word] for word in order])
        for place in np.ndindex(found.shape):
            pair = tuple(sorted((order[i] for i in place), key=words.index))
            assert found[place] == pytest.approx(expected.get(pair, 1)), pair
    np.testing.assert_array_equal(np.diag(found), 1)
    np.testing.assert_array_equal(found, found.T)


def test_ids_that_wordnet_does_not_have_are_errors(little_wordnet):
    with (
        pytest.raises(ValueError, match=r"WordNet 3\.0.*has no n00000007"),
        pytest.warns(UserWarning, match="No WordNet synset found"),
    ):
        wordnet_similarity([little_wordnet["dog"], "n00000007"])


def test_wordnet_itself():
    pytest.importorskip("nltk")
    try:
        found = wordnet_similarity(["n02084071", "n02121620", "n02958343"])  # dog, cat, car
    except ImportError:
        pytest.skip("NLTK without its WordNet corpus")
    np.testing.assert_array_equal(np.diag(found), 1)
    assert found[0, 1] == pytest.approx(0.857, abs=1e-3)
    assert found[0, 2] < 0.5


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: accuracy(PREDICTIONS / 1, LABELS), "predictions must be ints"),
        (lambda: accuracy(PREDICTIONS, LABELS[:4]), r"labels must be .* or \[50\]"),
        (lambda: accuracy([], []), "predictions must be ints"),
        (lambda: unchanged_predictions(LABELS, LABELS - 1), "reference must be classes from 0"),
        (lambda: unchanged_predictions(LABELS, PREDICTIONS), "reference must be"),
        (lambda: class_entropy(3), "predictions must be ints"),
        (lambda: class_similarity(LABELS, LABELS, SIMILARITY[:3]), r"similarity must be \[K, K\]"),
        (lambda: class_similarity(LABELS, LABELS, np.eye(3)), "3 classes, but class 5 occurs"),
        (lambda: class_similarity(LABELS, LABELS, np.full((6, 6), np.nan)), "similarity holds NaN"),
        (lambda: wordnet_similarity(["tench"]), "'n01440764', got .'tench'"),
        (lambda: wordnet_similarity([]), "wnids must be strings"),
    ],
)
def test_bad_input_is_an_error(call, message):
    with pytest.raises(ValueError, match=message):
        call()

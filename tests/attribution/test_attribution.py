"""Attributions as they print, and what they share whatever their method."""

import jax
import numpy as np
import pytest

from lmjax.attribution import Attribution, leave_one_out, rise
from lmjax.attribution.game import Game
from lmjax.evaluation.requests import answered
from lmjax.masks import Coalitions
from tests.support.games import game, picture, smooth_table, strip

NETWORK = game(smooth_table(6))


@pytest.mark.parametrize("target", [0, (2, 0), range(3)])
def test_an_attribution_prints_what_it_is(target):
    found = leave_one_out(NETWORK, picture(6), strip(6), target=target)
    text = repr(found)
    assert len(text) < 300
    assert f"target={found.target}" in text
    assert f"float32{list(found.scores.shape)}" in text
    assert f"from {found.scores.min():.4g} to {found.scores.max():.4g}" in text
    assert "num_variants=7" in text
    assert "segments=[2, 6]" in text
    if target == 0:
        assert f"probability={found.probability:.4g}" in text


def test_maps_of_many_classes_print_as_shortly():
    scores = np.zeros((1000, 224, 224), np.float32)
    probability = np.full(1000, 1e-3, np.float32)
    found = Attribution(scores, tuple(range(1000)), probability, 0, probability[0], 4001)
    assert len(repr(found)) < 300
    assert "(0, 1, 2, ... 1000 in all)" in repr(found)
    assert "segments" not in repr(found)


def test_attributions_print_inside_transformations():
    found = rise(NETWORK, picture(6), key=jax.random.key(0), num_samples=4, grid=1)
    printed = []

    @jax.jit
    def doubled(attribution):
        printed.append(repr(attribution))
        return jax.tree.map(lambda leaf: 2 * leaf, attribution)

    assert repr(doubled(found)) != repr(found)
    assert repr(jax.tree.map(lambda leaf: None, found))
    assert len(printed[0]) < 300
    assert "[2, 6]" in printed[0]


def test_a_game_checks_what_it_is_given():
    for options, message in (
        (
            {"objective": "odds"},
            "objective must be one of probability, logit, margin, a function",
        ),
        ({"segments": strip(5)}, "like the image"),
        ({"image": np.zeros((2, 6))}, r"image must be \[H, W, C\]"),
    ):
        arguments = {"predictor": NETWORK, "image": picture(6), "segments": strip(6), **options}
        with pytest.raises(ValueError, match=message):
            Game(**arguments)


def test_the_payoffs_of_a_game_are_the_networks_outputs():
    table = smooth_table(6)
    match = Game(NETWORK, picture(6), strip(6), target=(2, 0), objective="logit")
    keep = np.array([[0, 0, 0, 0, 0, 0], [1, 0, 1, 0, 0, 0]], bool)
    payoffs = answered(match.ask(Coalitions(match.segments, keep)))
    assert match.num_segments == 6
    np.testing.assert_allclose(payoffs.values, table[[0, 5]][:, [2, 0]], rtol=1e-6)
    np.testing.assert_allclose(payoffs.whole, table[63, [2, 0]], rtol=1e-6)
    assert payoffs.prediction.target == (2, 0)
    assert payoffs.prediction.predicted_class == table[63].argmax()
    assert payoffs.prediction.predicted_probability == pytest.approx(
        np.exp(table[63].max()) / np.exp(table[63]).sum()
    )

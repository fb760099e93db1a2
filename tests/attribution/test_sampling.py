"""Runs that stop early and go on later."""

import dataclasses
import importlib
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lmjax.attribution import (
    Surrogate,
    banzhaf,
    exact_shapley,
    hsic,
    kernelshap,
    lime,
    lime_regression,
    permutation_shapley,
    rise,
    sobol,
    stable_ranking,
)
from lmjax.attribution.banzhaf import difference_of_means
from lmjax.attribution.game import Game, Payoffs, Prediction
from lmjax.attribution.sampling import Estimate, Sampling, run
from lmjax.evaluation.requests import answered
from lmjax.masks import bernoulli_keep, numbered, random_keep
from lmjax.masks.families import MaskFamily
from tests.support.games import game, picture, smooth_table, strip

KEY = jax.random.key(4)
S = 10
METHODS = {
    "permutations": (permutation_shapley, "num_permutations", (8, 11, 30)),
    "kernelshap": (kernelshap, "num_samples", (40, 61, 400)),
    "banzhaf": (banzhaf, "num_samples", (32, 77, 300)),
    "lime": (lime, "num_samples", (100, 131, 400)),
    "rise": (rise, "num_samples", (2, 131, 500)),
    "sobol": (sobol, "num_designs", (32, 41, 128)),
    "hsic": (hsic, "num_samples", (60, 131, 300)),
}
# What else decides what a sample is.
SETTINGS = {
    "permutations": ("antithetic", True, False),
    "lime": ("keep_probability", 0.5, 0.4),
    "rise": ("grid", (1, S), (1, 5)),
    "sobol": ("soft", False, True),
}
NETWORK = game(smooth_table(S))


def explain(name, number, network=NETWORK, *, image=None, key=KEY, target=(0, 2), **options):
    method, argument, _ = METHODS[name]
    image = picture(S) if image is None else image
    own = {"grid": (1, S)} if method is rise else {"segments": strip(S)}
    options = {"objective": "logit", argument: number, **own, **options}
    return method(network, image, key=key, target=target, **options)


# -- the pattern, on the smallest method there is: the mean of random numbers


class Numbers(MaskFamily):
    """Variants that are numbers."""

    spatial_shape, make = (2, 2), None

    def __init__(self, rows):
        self.rows = rows


def mean_of_normals(*, key=KEY, name="mean", first_check=10):
    """A method whose variants are numbers: their mean is the score."""

    def draw(first, last):
        normals = numbered(lambda key: jax.random.normal(key, (2,)), first, last, key=key)
        return Numbers(np.asarray(normals))

    def estimate(samples):
        values, count = samples.values, samples.count
        assert len(values) == count
        return Estimate(values.mean(axis=0)[None], values.std(axis=0)[None] / np.sqrt(count))

    return Sampling(draw, estimate, key, (name,), first_check)


@dataclasses.dataclass
class Identity:
    """A game whose payoffs are its variants."""

    whole: float = 1.0
    target: tuple[int, ...] = (0, 1)
    segments: np.ndarray | None = None
    factor: float = 1.0  # another one is another removal: the whole image does not change
    planned: list = dataclasses.field(default_factory=list)
    evaluated: list = dataclasses.field(default_factory=list)

    def ask(self, variants, *, expected=None):
        prediction = Prediction(self.target, np.ones(2), 0, np.ones(()))
        values = yield from self.ask_more(variants, prediction, expected=expected)
        self.evaluated[-1] += 1
        return Payoffs(values, np.ones(2) * self.whole, prediction)

    def ask_more(self, variants, prediction, *, expected=None):
        self.planned.append(expected)
        self.evaluated.append(len(variants))
        yield from ()  # asks nothing
        return variants.rows * self.factor


def mean(method, num_samples, game=None, **options):
    game = Identity() if game is None else game
    return answered(run(method, game, num_samples, expected=num_samples + 1, **options))


def test_a_run_without_a_rule_asks_once():
    game = Identity()
    found = mean(mean_of_normals(), 100, game)
    assert game.evaluated == [101]
    assert found.num_variants == 101
    assert found.samples.count == 100


def test_the_rule_is_asked_at_growing_numbers_and_stops_the_run():
    seen, game = [], Identity()

    def until(scores, standard_error):
        seen.append(standard_error.max())
        return len(seen) == 4

    found = mean(mean_of_normals(), 100, game, until=until)
    assert game.evaluated == [11, 3, 4, 5]
    assert found.samples.count == 22
    assert found.num_variants == sum(game.evaluated)
    assert seen[-1] < seen[0]


def test_the_rule_never_met_ends_at_the_number_of_samples():
    game = Identity()
    found = mean(mean_of_normals(), 20, game, until=lambda *estimate: False)
    assert game.evaluated == [11, 3, 4, 3]
    assert found.samples.count == 20


def test_few_samples_are_never_judged():
    def until(scores, standard_error):
        raise AssertionError

    assert mean(mean_of_normals(), 9, until=until).samples.count == 9


def test_going_on_evaluates_what_is_new_and_five_variants_again():
    game, method = Identity(), mean_of_normals()
    first = mean(method, 10, game, until=lambda *estimate: True)
    second = mean(method, 300, game, previous=first)
    third = mean(method, 300, game, previous=second)
    assert game.evaluated == [11, 295, 5]
    at_once = mean(method, 300)
    for found in (second, third):
        np.testing.assert_array_equal(found.scores, at_once.scores)
        np.testing.assert_array_equal(found.standard_error, at_once.standard_error)
        assert found.num_variants == at_once.num_variants


def test_what_is_good_enough_already_is_not_evaluated():
    game = Identity()
    first = mean(mean_of_normals(), 50, game)
    found = mean(mean_of_normals(), 90, game, previous=first, until=lambda *estimate: True)
    assert game.evaluated == [51, 5]
    np.testing.assert_array_equal(found.scores, first.scores)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"key": jax.random.key(9)}, "another key"),
        ({"name": "median"}, r"sampled by \('mean',\), this call is \('median',\)"),
        ({"num_samples": 40}, "more samples than are asked for, 1.25 times as many"),
        ({"game": Identity(segments=np.zeros((2, 2), int))}, "other segments"),
        ({"game": Identity(whole=1.1)}, "another image, predictor or objective"),
        ({"game": Identity(factor=1.1)}, "another image, predictor or removal: its outputs for 4"),
        ({"game": Identity(target=(1, 0))}, r"target \(0, 1\)"),
        ({"samples": None}, "must be an attribution that has samples"),
    ],
)
def test_what_does_not_continue_is_an_error(change, message):
    previous = mean(mean_of_normals(), 50)
    if "samples" in change:
        previous = dataclasses.replace(previous, samples=None)
    method = mean_of_normals(name=change.get("name", "mean"), key=change.get("key", KEY))
    game = change.get("game")
    with pytest.raises(ValueError, match=message):
        mean(method, change.get("num_samples", 90), game, previous=previous)


def test_draws_that_changed_are_not_continued(monkeypatch):
    """The same key, but another version of JAX or configuration."""
    previous = mean(mean_of_normals(), 50)
    monkeypatch.setattr("lmjax.attribution.sampling.hash_draws", lambda key: "another")
    with pytest.raises(ValueError, match="the same key gives other draws"):
        mean(mean_of_normals(), 90, previous=previous)


def test_every_portion_is_planned_for_the_whole_run():
    game = Identity()
    mean(mean_of_normals(), 20, game, until=lambda *estimate: False)
    assert game.planned == [21] * 4


# -- the methods


@pytest.mark.parametrize("name", METHODS)
def test_a_run_in_parts_equals_one_run(name):
    few, some, many = METHODS[name][2]
    at_once = explain(name, many)
    parts = None
    for number in (few, some, many):
        parts = explain(name, number, previous=parts)
    stopped = explain(name, many, until=lambda *estimate: True)
    assert stopped.num_variants < at_once.num_variants
    resumed = explain(name, many, previous=stopped)
    for found in (parts, resumed):
        np.testing.assert_allclose(found.scores, at_once.scores, atol=2e-6)
        np.testing.assert_allclose(found.standard_error, at_once.standard_error, atol=2e-6)
        assert found.num_variants == at_once.num_variants
        assert found.predicted_class == at_once.predicted_class


@pytest.mark.parametrize("name", METHODS)
def test_methods_plan_every_portion_for_the_variants_of_the_whole_run(name, monkeypatch):
    planned, ask = set(), Game.ask

    def watched(game, masks, *, expected=None):
        planned.add(expected)
        return ask(game, masks, expected=expected)

    monkeypatch.setattr(Game, "ask", watched)
    found = explain(name, METHODS[name][2][-1], until=lambda *estimate: False)
    (expected,) = planned
    if name == "sobol":  # variants that coincide are evaluated once
        assert expected == 128 * (S + 1) + 1 > found.num_variants
    else:
        assert expected == found.num_variants


@pytest.mark.parametrize("name", METHODS)
def test_one_target_goes_on_too(name):
    few, _, many = METHODS[name][2]
    at_once = explain(name, many, target=None)
    assert at_once.scores.shape in {(S,), (2, S)}
    found = explain(name, many, target=None, previous=explain(name, few, target=None))
    np.testing.assert_allclose(found.scores, at_once.scores, atol=2e-6)


@pytest.mark.parametrize("segments", [1, 2])
def test_portions_may_show_nothing(segments):
    """The only new variant of some keys is the empty coalition."""
    options = {"target": 0, "objective": "logit"}
    arguments = game(smooth_table(segments)), picture(segments), strip(segments)
    for seed in range(6):
        options["key"] = jax.random.key(seed)
        few = lime(*arguments, num_samples=20, **options)
        found, at_once = (
            lime(*arguments, num_samples=21, previous=x, **options) for x in (few, None)
        )
        np.testing.assert_allclose(found.scores, at_once.scores, atol=1e-5)


def test_half_precision_goes_on():
    """Other batches give outputs that differ in the third digit."""

    def network(image, masks):
        logits = NETWORK(image, masks)
        jitter = 1 + 0.004 * jnp.sin(jnp.arange(len(masks)) * len(masks))
        return logits * jitter[:, None]

    few = explain("lime", 100, network)
    assert explain("lime", 130, network, previous=few).num_variants == 130


@pytest.mark.parametrize("name", METHODS)
def test_going_on_with_another_network_or_setting_is_an_error(name):
    few, _, many = METHODS[name][2]
    previous = explain(name, few)
    with pytest.raises(ValueError, match="another image, predictor or objective"):
        explain(name, many, game(smooth_table(S, seed=1)), previous=previous)
    removed = smooth_table(S, seed=1)
    removed[-1] = smooth_table(S)[-1]  # as of another removal: the whole image is the same
    with pytest.raises(ValueError, match="another image, predictor or removal"):
        explain(name, many, game(removed), previous=previous)
    with pytest.raises(ValueError, match="another image, predictor or objective"):
        explain(name, many, objective="probability", previous=previous)
    if name in SETTINGS:
        option, one, other = SETTINGS[name]
        message = f"{option}.*{re.escape(str(one))}.*{option}.*{re.escape(str(other))}"
        with pytest.raises(ValueError, match=message):
            explain(name, many, previous=previous, **{option: other})


@pytest.mark.parametrize("name", METHODS)
def test_a_clear_ranking_stops_a_run_and_a_tie_does_not(name):
    keep = (np.arange(2**S)[:, None] >> np.arange(S)) % 2
    rng = np.random.default_rng(0)
    noise = rng.normal(size=(2**S, 1))
    clear = keep @ np.array([40, 20] + [0] * (S - 2))[:, None] + noise
    tied = keep @ np.array([20, 20] + [0] * (S - 2))[:, None] + noise + noise.mean()
    many = METHODS[name][2][-1]
    whole_run = explain(name, many, game(clear), target=[0])
    until = stable_ranking(2, cells=(1, S))
    found = explain(name, many, game(clear), target=[0], until=until)
    assert found.num_variants < whole_run.num_variants
    assert list(np.argsort(-found.scores.reshape(-1, S)[0])[:2]) == [0, 1]
    until = stable_ranking(1, errors=8, cells=(1, S))
    never = explain(name, many, game(tied), target=[0], until=until)
    assert never.num_variants == whole_run.num_variants


@pytest.mark.parametrize("name", ["kernelshap", "rise"])
def test_an_attribution_with_samples_is_a_pytree(name):
    found = explain(name, 100)
    leaves, tree = jax.tree.flatten(found)
    again = jax.tree.unflatten(tree, [np.asarray(leaf) for leaf in leaves])
    more = explain(name, 200, previous=again)
    np.testing.assert_allclose(more.scores, explain(name, 200).scores, atol=2e-6)


@pytest.mark.parametrize(("method", "few", "many"), [(rise, 30, 200), (sobol, 8, 64)])
def test_soft_masks_go_on_too(method, few, many):
    def network(image, masks):
        return jnp.stack([masks[:, 0, 0] * masks[:, -1, -1], masks.mean(axis=(1, 2))], axis=1)

    def explain(number, previous=None):
        image = np.zeros((6, 9, 3), np.float32)
        options = {"num_samples" if method is rise else "num_designs": number, "grid": 3}
        return method(
            network, image, key=KEY, target=(0, 1), soft=True, previous=previous, **options
        )

    at_once, found = explain(many), explain(many, explain(few))
    np.testing.assert_allclose(found.scores, at_once.scores, atol=1e-6)
    np.testing.assert_allclose(found.standard_error, at_once.standard_error, atol=1e-6)
    assert found.num_variants == at_once.num_variants


@pytest.mark.parametrize("until", [None, lambda *estimate: False], ids=["at once", "watched"])
def test_rise_sums_each_mask_once(monkeypatch, until):
    module, summed = importlib.import_module("lmjax.attribution.rise"), []
    weighted_sum = module.weighted_sum

    def counted(masks, weights):
        summed.append(len(masks))
        return weighted_sum(masks, weights)

    monkeypatch.setattr(module, "weighted_sum", counted)
    explain("rise", 300, until=until, previous=explain("rise", 120, until=until))
    assert sum(summed) == 300


def test_lime_goes_on_with_another_regression():
    options = {"surrogate": Surrogate(alpha=0.1, distance="euclidean")}
    found = explain("lime", 200, previous=explain("lime", 100), **options)
    np.testing.assert_allclose(found.scores, explain("lime", 200, **options).scores, atol=2e-6)
    assert found.r2.shape == found.intercept.shape == (2,)


def test_sobol_goes_on_where_nothing_new_is_drawn():
    network = game(smooth_table(2))
    asked = {"key": KEY, "segments": strip(2), "target": 0, "objective": "logit"}
    first = sobol(network, picture(2), num_designs=32, **asked)
    more = sobol(network, picture(2), num_designs=256, previous=first, **asked)
    assert more.num_variants == first.num_variants == 5
    np.testing.assert_array_equal(
        more.scores, sobol(network, picture(2), num_designs=256, **asked).scores
    )
    assert more.samples.count == 256


# -- the rule


@pytest.mark.parametrize(
    ("scores", "errors", "top", "stable"),
    [
        ([5, 3, 1, 0.9], [0.1, 0.1, 0.1, 0.1], 2, True),
        ([5, 3, 1, 0.9], [0.1, 0.1, 0.1, 0.1], 3, False),
        ([5, 3, 1, 0.9], [0.01, 0.01, 0.01, 0.01], 9, True),
        ([3, 5, 0.9, 1], [0.01, 0.01, 0.01, 0.01], 2, True),
        ([5, 3, 1, 0.9], [0.1, 0.1, 0.1, 3], 1, False),  # the last may be the first
        ([5, 0, 0, 0], [0.1, 0, 0, 0], 4, True),  # equal for sure
        ([5, 0, 0, 0], [0.1, 0.1, 0, 0], 2, False),
        ([5], [1], 1, True),
    ],
)
def test_rankings_are_stable_when_scores_are_errors_apart(scores, errors, top, stable):
    until = stable_ranking(top)
    one = np.array([scores], float), np.array([errors], float)
    assert until(*one) is stable
    settled = np.arange(len(scores))[None] * 100.0, np.ones((1, len(scores)))
    both = [np.concatenate(pair) for pair in zip(one, settled)]
    assert until(*both) is stable  # all targets


def test_maps_are_ranked_as_cells():
    left = np.zeros((1, 4, 6))
    left[:, :, :3] = np.random.default_rng(0).uniform(0.5, 1.5, (4, 3))  # no order within
    errors = np.full(left.shape, 0.2)
    assert stable_ranking(1, cells=(1, 2))(left, errors)
    assert not stable_ranking(1, cells=(2, 2))(left, errors)  # the two left cells are close
    assert not stable_ranking(1, cells=99)(left, errors)  # nor are pixels settled
    # The mean of the cell's errors decides, not one pixel's.
    errors[:, :, 3:] = [0, 0, 0.9]
    assert stable_ranking(1, cells=(1, 2))(left, errors)
    errors[0, 0, 0] = np.inf  # a pixel that was never shown
    assert not stable_ranking(1, cells=(1, 2))(left, errors)


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ((1,), {"cells": 0}, "cells must be .* got 0"),
        ((1,), {"cells": (3, 3, 3)}, "cells must be"),
        ((0,), {}, "top must be .* got 0"),
        ((1.5,), {}, "top must be"),
        ((1,), {"errors": 0.0}, "errors must be .* above 0"),
    ],
)
def test_rules_out_of_range_are_errors(arguments, options, message):
    with pytest.raises(ValueError, match=message):
        stable_ranking(*arguments, **options)


def test_what_is_no_function_cannot_stop_a_run():
    given = game(smooth_table(8)), picture(8), strip(8)
    with pytest.raises(ValueError, match=r"until must be a function .* got 5"):
        banzhaf(*given, key=jax.random.key(0), num_samples=64, until=5)


# -- samples of one method that serve another


def lime_of(num_samples, **options):
    return lime(NETWORK, picture(S), strip(S), key=KEY, num_samples=num_samples, **options)


def banzhaf_of(num_samples, **options):
    return banzhaf(NETWORK, picture(S), strip(S), key=KEY, num_samples=num_samples, **options)


def test_lime_s_coalitions_serve_banzhaf_values():
    drawn = lime_of(400)
    found = banzhaf_of(399, previous=drawn)
    assert found.num_variants == 400  # none is new
    keep = random_keep(S, 400, key=KEY)[1:]
    expected = difference_of_means(keep, drawn.samples.values)
    np.testing.assert_allclose(found.scores, expected.scores[0], atol=1e-6)
    np.testing.assert_allclose(found.standard_error, expected.standard_error[0], atol=1e-6)
    more = banzhaf_of(600, previous=drawn)
    assert more.num_variants == 601
    again = banzhaf_of(600, previous=found)
    np.testing.assert_allclose(more.scores, again.scores, atol=1e-6)
    error = np.abs(more.scores - banzhaf_of(2**S).scores) / more.standard_error
    assert error.max() < 4


def test_banzhaf_coalitions_serve_lime():
    drawn = banzhaf_of(400)
    found = lime_of(401, previous=drawn)
    assert found.num_variants == 401
    keep = np.concatenate([np.ones((1, S), bool), bernoulli_keep(S, 400, key=KEY)])
    values = np.concatenate([drawn.samples.whole[None], drawn.samples.values])
    scores, intercept, r2 = lime_regression(keep, values)
    np.testing.assert_allclose(found.scores, scores[0], atol=1e-5)
    np.testing.assert_allclose([found.intercept, found.r2], [intercept[0], r2[0]], atol=1e-5)
    np.testing.assert_allclose(
        lime_of(401, previous=lime_of(401, previous=drawn)).scores, found.scores
    )


def test_samples_with_all_coalitions_give_exact_shapley_values():
    small, number = 4, 400
    network, options = game(smooth_table(small)), {"key": KEY, "target": (2, 0)}
    exact = exact_shapley(network, picture(small), strip(small), target=(2, 0))
    drawn = lime(network, picture(small), strip(small), num_samples=number, **options)
    found = kernelshap(network, picture(small), strip(small), previous=drawn, **options)
    np.testing.assert_allclose(found.scores, exact.scores, atol=1e-6)
    np.testing.assert_array_equal(found.standard_error, 0)
    assert found.num_variants == drawn.num_variants
    (single,) = drawn.target[:1]
    alone = {**options, "target": single}
    drawn = lime(network, picture(small), strip(small), num_samples=number, **alone)
    found = kernelshap(network, picture(small), strip(small), key=KEY, previous=drawn)
    assert found.target == single
    np.testing.assert_allclose(found.scores, exact.scores[0], atol=1e-6)


def test_samples_that_do_not_serve_are_refused():
    with pytest.raises(ValueError, match=r"lime holds .* of the 2\^10 coalitions of 10 segments"):
        kernelshap(NETWORK, picture(S), strip(S), key=KEY, previous=lime_of(300))
    with pytest.raises(ValueError, match="sampled by"):  # another distribution
        banzhaf_of(400, previous=lime_of(300, keep_probability=0.4))
    with pytest.raises(ValueError, match="sampled by"):
        lime_of(400, keep_probability=0.4, previous=banzhaf_of(300))
    pairs = kernelshap(NETWORK, picture(S), strip(S), key=KEY, num_samples=300)
    for method in (lime_of, banzhaf_of):
        with pytest.raises(ValueError, match="sampled by"):
            method(400, previous=pairs)
    other = game(smooth_table(S, seed=1))
    with pytest.raises(ValueError, match="another image, predictor or objective"):
        banzhaf(other, picture(S), strip(S), key=KEY, num_samples=299, previous=lime_of(300))

"""Interactions against their definitions in plain loops, against shapiq, and between seeds."""

import itertools
import math
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import psutil
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lmjax.attribution import (
    Interactions,
    banzhaf,
    exact_shapley,
    interactions,
    kernelshap,
    lime,
    permutation_shapley,
    rise,
)
from lmjax.attribution.interaction_estimates import from_pairs, from_uniform
from lmjax.attribution.interaction_indices import INDICES, index_sums
from lmjax.evaluation import Evaluator, Predictor
from lmjax.masks import all_coalitions, bernoulli_keep, complement_pairs, random_keep, shapley_keep
from lmjax.removals import Replace
from tests.support.games import (
    TABLES,
    banzhaf_by_loop,
    game,
    picture,
    shapley_by_loop,
    smooth_table,
    strip,
)
from tests.support.small_classifier import small_classifier

KEY = jax.random.key(0)
ADDS_UP = ("k-SII", "STII", "Faith-Shapley")
examples = settings(max_examples=5, deadline=None)


def explain(network, num_segments, *, method=interactions, target=(0, 1), key=KEY, **options):
    where = picture(num_segments), strip(num_segments)
    return method(network, *where, key=key, target=target, objective="logit", **options)


# -- the definitions, in loops


def synergy(table, one, other, seen):
    """What two segments do together beyond what they do apart, `[K]`."""
    both = 1 << one | 1 << other
    return table[seen | both] - table[seen | 1 << one] - table[seen | 1 << other] + table[seen]


def mean_synergies(table, weight):
    """Synergies `[K, S, S]` summed with a weight for each number of other segments."""
    size = int(np.log2(len(table)))
    pairs = np.zeros((table.shape[1], size, size))
    for one, other in itertools.permutations(range(size), 2):
        for seen in range(len(table)):
            if not seen & (1 << one | 1 << other):
                pairs[:, one, other] += weight(seen.bit_count()) * synergy(table, one, other, seen)
    return pairs


def k_sii_by_loop(table):
    size = int(np.log2(len(table)))

    def weight(others):
        return math.factorial(others) * math.factorial(size - 2 - others) / math.factorial(size - 1)

    pairs = mean_synergies(table, weight)
    return shapley_by_loop(table) - pairs.sum(axis=2) / 2, pairs


def stii_by_loop(table):
    """In random orders: the synergy where the first of the pair appears."""
    size = int(np.log2(len(table)))
    pairs = np.zeros((table.shape[1], size, size))
    orders = [*itertools.permutations(range(size))]
    for order in orders:
        for place, one in enumerate(order):
            seen = sum(1 << each for each in order[:place])
            for other in order[place + 1 :]:
                pairs[:, one, other] += synergy(table, one, other, seen) / len(orders)
    alone = np.stack([table[1 << i] - table[0] for i in range(size)], axis=1)
    return alone, pairs + pairs.swapaxes(1, 2)


def faith_shapley_by_regression(table):
    """The nearest model of order two under the Shapley kernel, exact for nothing and for all."""
    size = int(np.log2(len(table)))
    keep = all_coalitions(size)[1:-1]
    weights = [1 / (math.comb(size, k) * k * (size - k)) for k in keep.sum(axis=1)]
    fit = constrained(keep, table[1:-1] - table[0], np.array(weights), table[-1] - table[0])
    return fit[:, :size], unpacked(fit[:, size:], size)


def constrained(keep, values, weights, total):
    """Coefficients `[K, F]` of segments and pairs, shown or not, that sum to `total`."""
    first, second = np.triu_indices(keep.shape[1], 1)
    x = np.concatenate([keep, keep[:, first] & keep[:, second]], axis=1).astype(float)
    root = np.sqrt(weights)[:, None]
    free = x[:, :-1] - x[:, -1:]
    found = np.linalg.lstsq(root * free, root * (values - x[:, -1:] * total), rcond=None)[0]
    return np.concatenate([found, [total - found.sum(axis=0)]]).T


def unpacked(pairs, size):
    matrix = np.zeros((len(pairs), size, size))
    first, second = np.triu_indices(size, 1)
    matrix[:, first, second] = matrix[:, second, first] = pairs
    return matrix


def banzhaf_interactions_by_loop(table):
    size = int(np.log2(len(table)))
    return banzhaf_by_loop(table), mean_synergies(table, lambda others: 0.5 ** (size - 2))


BY_LOOP = {
    "k-SII": k_sii_by_loop,
    "STII": stii_by_loop,
    "Faith-Shapley": faith_shapley_by_regression,
    "Banzhaf": banzhaf_interactions_by_loop,
}


def test_every_index_has_an_oracle():
    assert set(BY_LOOP) == set(INDICES)


@pytest.mark.parametrize("index", BY_LOOP)
@given(TABLES)
@examples
def test_all_coalitions_give_the_definition(index, table):
    found = explain(game(table), 5, index=index)
    scores, pairs = BY_LOOP[index](table.astype(float))
    np.testing.assert_allclose(found.scores, scores, atol=2e-5)
    np.testing.assert_allclose(found.pairs, pairs, atol=2e-5)
    assert found.num_variants == 32
    assert found.standard_error.max() == found.pairs_standard_error.max() == 0


@pytest.mark.parametrize("num_segments", [1, 2, 3])
@pytest.mark.parametrize("index", BY_LOOP)
def test_few_segments(index, num_segments):
    table = smooth_table(num_segments)
    found = explain(game(table), num_segments, index=index, target=0)
    if num_segments == 1:
        np.testing.assert_allclose(found.scores, table[1, :1] - table[0, :1], atol=1e-6)
        np.testing.assert_array_equal(found.pairs, [[0]])
    elif index != "Faith-Shapley" or num_segments == 3:
        scores, pairs = BY_LOOP[index](table)
        np.testing.assert_allclose(found.scores, scores[0], atol=1e-5)
        np.testing.assert_allclose(found.pairs, pairs[0], atol=1e-5)
    else:  # the model has as many coefficients as there are coalitions
        np.testing.assert_allclose(found.scores, table[[1, 2], 0] - table[0, 0], atol=1e-5)


@pytest.mark.parametrize("index", BY_LOOP)
def test_shapiq_agrees(index):
    shapiq = pytest.importorskip("shapiq")
    theirs = {"Faith-Shapley": "FSII", "Banzhaf": "BII"}.get(index, index)
    rng = np.random.default_rng(0)
    for size, table in (
        (3, rng.normal(size=8)),
        (8, rng.normal(size=256)),
        (6, (all_coalitions(6)[:, :4].all(axis=1)) * 1.0),  # unanimity of four
        (7, smooth_table(7)[:, 0]),
    ):

        def payoff(keep, table=table, size=size):
            return table[np.asarray(keep, int) @ 2 ** np.arange(size)]

        expected = shapiq.ExactComputer(payoff, n_players=size)(theirs, order=2)
        found, _ = index_sums(INDICES[index], all_coalitions(size), table[:, None])
        singles, pairs = (expected.get_n_order_values(order) for order in (1, 2))
        # Their regression for Faith-Shapley gives the constraints a finite weight.
        np.testing.assert_allclose(found.singles[0], singles, atol=1e-7)
        np.testing.assert_allclose(found.pairs[0], pairs, atol=1e-7)


# -- axioms


@pytest.mark.parametrize("index", ADDS_UP)
@pytest.mark.parametrize("num_samples", [None, 130])
def test_efficiency(index, num_samples):
    table = smooth_table(8)[:, :2]
    found = explain(game(table), 8, index=index, num_samples=num_samples)
    total = found.intercept + found.scores.sum(axis=1) + found.pairs.sum(axis=(1, 2)) / 2
    np.testing.assert_allclose(found.intercept, table[0], atol=1e-5)
    np.testing.assert_allclose(total, table[-1], atol=1e-4)


@pytest.mark.parametrize("index", BY_LOOP)
@given(TABLES)
@examples
def test_symmetry(index, table):
    bits = np.arange(32)
    swapped = bits & ~3 | (bits & 1) << 1 | (bits & 2) >> 1
    found = explain(game(table + table[swapped]), 5, index=index)
    np.testing.assert_allclose(found.scores[:, 0], found.scores[:, 1], atol=1e-5)
    np.testing.assert_allclose(found.pairs[:, 0, 2:], found.pairs[:, 1, 2:], atol=1e-5)
    np.testing.assert_array_equal(found.pairs, found.pairs.swapaxes(1, 2))


@pytest.mark.parametrize("index", BY_LOOP)
@given(TABLES, st.integers(0, 4))
@examples
def test_a_segment_without_effect_has_no_score_and_no_partner(index, table, segment):
    found = explain(game(table[np.arange(32) & ~(1 << segment)]), 5, index=index)
    np.testing.assert_allclose(found.scores[:, segment], 0, atol=1e-5)
    np.testing.assert_allclose(found.pairs[:, segment], 0, atol=1e-5)


@pytest.mark.parametrize("index", BY_LOOP)
@pytest.mark.parametrize("num_samples", [None, 120])
def test_segments_and_one_pair_are_recovered_exactly(index, num_samples):
    """From samples too: nothing is left over by a model of pairs."""
    keep = all_coalitions(8).astype(float)
    effects = np.arange(8) - 2.5
    table = (keep @ effects + 3 * keep[:, 1] * keep[:, 4] + 0.5)[:, None]
    found = explain(game(table), 8, target=0, index=index, num_samples=num_samples)
    expected = np.zeros((8, 8))
    expected[1, 4] = expected[4, 1] = 3
    alone = effects + (expected.sum(axis=1) / 2 if index == "Banzhaf" else 0)
    np.testing.assert_allclose(found.pairs, expected, atol=1e-4)
    np.testing.assert_allclose(found.scores, alone, atol=1e-4)
    np.testing.assert_allclose(found.pairs_standard_error, 0, atol=1e-4)


@pytest.mark.parametrize(
    ("index", "single", "pair"),
    [
        ("k-SII", 1 / 3 - 1 / 2, 1 / 2),
        ("STII", 0, 1 / 3),
        ("Faith-Shapley", -1 / 6, 1 / 2),
        ("Banzhaf", 1 / 4, 1 / 2),
    ],
)
def test_three_segments_that_need_each_other(index, single, pair):
    table = all_coalitions(6)[:, [0, 2, 5]].all(axis=1)[:, None]
    found = explain(game(table), 6, target=0, index=index)
    members = np.isin(np.arange(6), (0, 2, 5))
    np.testing.assert_allclose(found.scores, single * members, atol=1e-6)
    expected = pair * members[:, None] * members[None] * (1 - np.eye(6))
    np.testing.assert_allclose(found.pairs, expected, atol=1e-6)


# -- a network


H, W = 4, 6
IMAGE = np.random.default_rng(0).random((H, W, 3)).astype(np.float32)
LABELS = np.arange(H * W).reshape(H, W) // 5
NETWORK = Predictor(small_classifier((H, W, 3), num_classes=4), Replace("grey"))


def table_of_network():
    masks = all_coalitions(5)[:, LABELS]
    return np.asarray(NETWORK(IMAGE, masks), np.float64)


@pytest.mark.parametrize("index", BY_LOOP)
def test_a_network(index):
    evaluator = Evaluator(NETWORK, batch_size=7)
    found = interactions(
        evaluator, IMAGE, LABELS, key=KEY, target=2, objective="logit", index=index
    )
    scores, pairs = BY_LOOP[index](table_of_network())
    np.testing.assert_allclose(found.scores, scores[2], atol=1e-5)
    np.testing.assert_allclose(found.pairs, pairs[2], atol=1e-5)
    np.testing.assert_array_equal(found.heatmap, found.scores[LABELS])
    np.testing.assert_array_equal(found.partners(3), found.pairs[3][LABELS])


def test_the_predicted_class_and_its_probability_are_explained_unless_told_otherwise():
    logits = table_of_network()
    shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    found = interactions(NETWORK, IMAGE, LABELS, key=KEY)
    assert found.target == found.predicted_class == logits[-1].argmax()
    scores, pairs = k_sii_by_loop(shares)
    np.testing.assert_allclose(found.scores, scores[found.target], atol=1e-5)
    np.testing.assert_allclose(found.pairs, pairs[found.target], atol=1e-5)
    np.testing.assert_allclose(found.probability, shares[-1].max(), rtol=1e-5)


def test_it_prints_what_it_is():
    text = repr(explain(game(smooth_table(6)), 6))
    assert text.startswith("Interactions(index='k-SII', scores=float32[2, 6]")
    assert "pairs=float32[2, 6, 6]" in text
    assert len(text) < 300


def test_it_is_a_pytree():
    found = explain(game(smooth_table(4)), 4)
    doubled = jax.tree.map(lambda leaf: 2 * leaf, found)
    assert isinstance(doubled, Interactions)
    np.testing.assert_array_equal(doubled.pairs, 2 * found.pairs)


# -- estimates


def test_faith_shapley_is_the_regression_on_its_own_coalitions():
    table = smooth_table(8, num_classes=2)
    found = explain(game(table), 8, index="Faith-Shapley", num_samples=136)
    drawn = shapley_keep(8, 60, key=KEY, smallest=2)
    z = np.concatenate([np.eye(8, dtype=bool), ~np.eye(8, dtype=bool), drawn, ~drawn])
    kernel = np.array([7 / (k * (8 - k)) for k in range(1, 8)])
    single = kernel[[0, -1]].sum() / kernel.sum()
    weights = np.repeat([single / 16, (1 - single) / 120], [16, 120])
    values = table[z @ 2 ** np.arange(8)] - table[0]
    expected = constrained(z, values, weights, table[-1] - table[0])
    np.testing.assert_allclose(found.scores, expected[:, :8], atol=1e-5)
    np.testing.assert_allclose(found.pairs, unpacked(expected[:, 8:], 8), atol=1e-5)
    assert found.num_variants == 138


def test_banzhaf_is_the_regression_on_its_own_coalitions():
    table = smooth_table(8, num_classes=2)
    found = explain(game(table), 8, index="Banzhaf", num_samples=140)
    keep = bernoulli_keep(8, 140, key=KEY).astype(float)
    first, second = np.triu_indices(8, 1)
    x = np.concatenate([np.ones((140, 1)), keep, keep[:, first] * keep[:, second]], axis=1)
    values = table[(keep @ 2 ** np.arange(8)).astype(int)]
    fit = np.linalg.lstsq(x, values, rcond=None)[0].T
    pairs = unpacked(fit[:, 9:], 8)
    np.testing.assert_allclose(found.pairs, pairs, atol=1e-5)
    np.testing.assert_allclose(found.scores, fit[:, 1:9] + pairs.sum(axis=2) / 2, atol=1e-5)
    assert found.num_variants == 141
    assert found.intercept is None


def paired(index, table, key):
    """An estimate from the coalitions of KernelSHAP."""
    drawn = shapley_keep(8, 80, key=key, smallest=2)
    keep = complement_pairs(np.concatenate([np.eye(8, dtype=bool), drawn]))
    rows = np.concatenate([[0], keep @ 2 ** np.arange(8)])
    return from_pairs(INDICES[index], drawn, table[rows], table[-1])


def uniform(index, table, key):
    keep = bernoulli_keep(8, 150, key=key)
    return from_uniform(INDICES[index], keep, table[keep @ 2 ** np.arange(8)])


@pytest.mark.parametrize(
    ("estimate", "index"), [*((paired, index) for index in INDICES), (uniform, "Banzhaf")]
)
def test_standard_errors_are_as_large_as_errors(estimate, index):
    table = smooth_table(8, num_classes=2)
    exact, _ = index_sums(INDICES[index], all_coalitions(8), table)
    found = [estimate(index, table, jax.random.key(seed)) for seed in range(40)]
    off_diagonal = ~np.eye(8, dtype=bool)
    for order in ("singles", "pairs"):
        of = (slice(None), off_diagonal) if order == "pairs" else ...
        errors = np.array(
            [(getattr(each.scores, order) - getattr(exact, order))[of] for each in found]
        )
        claimed = np.array([getattr(each.errors, order)[of] for each in found])
        if index == "STII" and order == "singles":  # single segments are all evaluated
            assert abs(errors).max() < 1e-12 > claimed.max()
            continue
        ratio = np.sqrt((errors**2).mean(axis=0) / (claimed**2).mean(axis=0))
        assert 0.8 < np.sqrt((ratio**2).mean()) < 1.2
        assert ratio.max() < 1.5
        bias = errors.mean(axis=0) / (errors.std(axis=0) / np.sqrt(40))
        assert np.sqrt((bias**2).mean()) < 2.5  # that of a regression falls with the samples


# What all members of a coalition that is needed as a whole, of t segments, are to each pair.
SHARES = {
    "k-SII": lambda t: 1 / (t - 1),
    "STII": lambda t: 2 / (t * (t - 1)),
    "Faith-Shapley": lambda t: 6 / (t * (t + 1)),
    "Banzhaf": lambda t: 2 ** (2.0 - t),
}


@pytest.mark.parametrize("index", INDICES)
def test_many_segments_of_a_game_whose_interactions_are_known(index):
    """A sum of coalitions that are needed as wholes, of two to six segments."""
    rng = np.random.default_rng(0)
    sizes = [2] * 40 + [3] * 40 + [4] * 20 + [6] * 10
    wholes = [np.sort(rng.choice(24, size, replace=False)) for size in sizes]
    effects = rng.normal(size=len(wholes))
    expected = np.zeros((24, 24))
    for effect, whole in zip(effects, wholes):
        expected[np.ix_(whole, whole)] += effect * SHARES[index](len(whole))
    np.fill_diagonal(expected, 0)

    def network(image, masks):
        needed = jnp.stack([masks[:, 0, whole].all(axis=1) for whole in wholes], axis=1)
        return needed.astype(jnp.float32) @ jnp.asarray(effects, jnp.float32)[:, None]

    found = explain(network, 24, target=0, index=index, num_samples=2000)
    off_diagonal = ~np.eye(24, dtype=bool)
    ratio = abs(found.pairs - expected)[off_diagonal] / found.pairs_standard_error[off_diagonal]
    assert np.sqrt((ratio**2).mean()) < 1.25
    assert ratio.max() < 6
    assert np.corrcoef(found.pairs[off_diagonal], expected[off_diagonal])[0, 1] > 0.9


@pytest.mark.parametrize("index", INDICES)
def test_more_samples_are_nearer(index):
    table = smooth_table(10)
    few, many = (explain(game(table), 10, index=index, num_samples=n) for n in (220, 900))
    assert 0.2 < many.pairs_standard_error.max() / few.pairs_standard_error.max() < 0.65
    exact = explain(game(table), 10, index=index)
    assert abs(many.pairs - exact.pairs).max() < 5 * many.pairs_standard_error.max()


def test_targets_together_equal_targets_alone():
    table = smooth_table(8)
    together = explain(game(table), 8, target=(2, 0), num_samples=150)
    for row, target in enumerate((2, 0)):
        alone = explain(game(table), 8, target=target, num_samples=150)
        assert alone.target == target
        for name in ("scores", "pairs", "standard_error", "pairs_standard_error", "intercept"):
            one, other = getattr(alone, name), getattr(together, name)[row]
            np.testing.assert_allclose(one, other, atol=1e-6)


# -- from the coalitions of other methods


TABLE = smooth_table(8)
GAME = game(TABLE)
SOURCES = (lime, banzhaf, kernelshap)


def unused(image, masks):
    """The game, asked for the few variants that tell whether it is the same."""
    assert len(masks) <= 8, "nothing else is to be evaluated"
    return GAME(image, masks)


@pytest.mark.parametrize(
    ("method", "index"),
    [(lime, "Banzhaf"), (banzhaf, "Banzhaf"), *((kernelshap, index) for index in INDICES)],
)
def test_coalitions_of_other_methods_are_used(method, index):
    attribution = explain(GAME, 8, method=method, num_samples=140)
    found = explain(unused, 8, index=index, previous=attribution)
    assert found.num_variants == attribution.num_variants
    if method is lime:
        keep = random_keep(8, 140, key=KEY)[1:]
        values = TABLE[keep @ 2 ** np.arange(8), :2]
        expected = from_uniform(INDICES[index], keep, values).scores
        np.testing.assert_allclose(found.pairs, expected.pairs, atol=1e-5)
    elif method is banzhaf or index != "Banzhaf":
        expected = explain(GAME, 8, index=index, num_samples=140)
        np.testing.assert_allclose(found.pairs, expected.pairs, atol=1e-6)
        np.testing.assert_allclose(found.scores, expected.scores, atol=1e-6)
    exact = explain(GAME, 8, index=index)
    error = np.square(found.pairs - exact.pairs).mean()
    assert error < 2 * np.square(found.pairs_standard_error).mean()


def test_shapley_values_and_pairs_of_the_same_coalitions_fit_together():
    attribution = explain(GAME, 8, method=kernelshap, num_samples=140)
    for index in ("k-SII", "Faith-Shapley"):
        found = explain(unused, 8, index=index, previous=attribution)
        values = found.scores + found.pairs.sum(axis=2) / 2
        np.testing.assert_allclose(values, attribution.scores, atol=1e-5)


@pytest.mark.parametrize("method", SOURCES)
@pytest.mark.filterwarnings("ignore:samples")
def test_going_on_is_one_long_run(method):
    evaluated = []

    def watched(image, masks):
        evaluated.append(len(masks))
        return GAME(image, masks)

    index = "STII" if method is kernelshap else "Banzhaf"
    first = explain(GAME, 8, method=method, num_samples=120)
    found = explain(GAME, 8, index=index, num_samples=160, previous=first)
    whole = explain(GAME, 8, method=method, num_samples=160)
    expected = explain(unused, 8, index=index, previous=whole)
    np.testing.assert_allclose(found.pairs, expected.pairs, atol=1e-6)
    np.testing.assert_allclose(found.pairs_standard_error, expected.pairs_standard_error, atol=1e-6)
    assert found.num_variants == whole.num_variants


def test_more_samples_than_there_are_coalitions_serve():
    """Banzhaf values would evaluate all coalitions, and LIME went on from its draws."""
    few = game(smooth_table(6))
    drawn = explain(few, 6, method=banzhaf, num_samples=40)
    many = explain(few, 6, method=lime, num_samples=200, previous=drawn)
    found = explain(few, 6, index="Banzhaf", previous=many)
    assert found.num_variants == many.num_variants


@pytest.mark.parametrize("evaluations", [140, 141, 2**8 - 1])
@pytest.mark.parametrize("index", INDICES)
def test_evaluations_are_what_may_be_evaluated(index, evaluations):
    found = explain(GAME, 8, index=index, evaluations=evaluations)
    assert evaluations - 2 < found.num_variants <= evaluations
    assert found.pairs_standard_error.any()
    if evaluations == 140:
        same = explain(GAME, 8, index=index, num_samples=139 if index == "Banzhaf" else 138)
        np.testing.assert_array_equal(found.pairs, same.pairs)


@pytest.mark.parametrize("index", INDICES)
@pytest.mark.parametrize("num_segments", [2, 3, 4, 5])
def test_evaluations_of_few_segments_are_all_or_an_error_that_says_how_many(num_segments, index):
    few = game(smooth_table(num_segments))
    options = {"index": index, "target": 0}
    with pytest.raises(ValueError, match=r"evaluations must be (\d+) or more") as error:
        explain(few, num_segments, evaluations=3, **options)
    fewest = int(str(error.value).split("must be ")[1].split(" ")[0])
    assert fewest <= 2**num_segments
    found = explain(few, num_segments, evaluations=fewest, **options)
    assert found.num_variants <= fewest
    with pytest.raises(ValueError, match=f"evaluations must be {fewest} or more"):
        explain(few, num_segments, evaluations=fewest - 1, **options)


@pytest.mark.parametrize("method", SOURCES)
def test_evaluations_of_previous_are_counted(method):
    first = explain(GAME, 8, method=method, evaluations=130)
    index = "Banzhaf" if method is not kernelshap else "STII"
    found = explain(GAME, 8, index=index, previous=first, evaluations=160)
    assert found.num_variants == 160
    assert explain(GAME, 8, index=index, previous=first, evaluations=2**8).num_variants == 2**8


def test_another_index_of_the_same_interactions_costs_nothing():
    first = explain(GAME, 8, num_samples=140)
    second = explain(unused, 8, index="STII", previous=first)
    assert second.index == "STII"
    np.testing.assert_allclose(
        second.pairs, explain(GAME, 8, index="STII", num_samples=140).pairs, atol=1e-6
    )
    values = explain(GAME, 8, method=kernelshap, num_samples=140, previous=first)
    np.testing.assert_allclose(
        values.scores, explain(GAME, 8, method=kernelshap, num_samples=140).scores, atol=1e-6
    )


def test_the_target_of_previous_is_explained():
    first = explain(GAME, 8, method=kernelshap, target=2, num_samples=140)
    assert explain(unused, 8, target=None, previous=first).target == 2
    found = explain(GAME, 8, target=None, previous=first, num_samples=150)
    assert found.target == 2


# -- bad input


def test_coalitions_that_do_not_serve_are_refused():
    of = {method: explain(GAME, 8, method=method, num_samples=140) for method in SOURCES}
    biased = explain(GAME, 8, method=lime, num_samples=140, keep_probability=0.3)
    orders = explain(GAME, 8, method=permutation_shapley, num_permutations=5)
    where = picture(8), strip(8)
    pixels = rise(GAME, where[0], key=KEY, num_samples=10, grid=1, target=(0, 1))
    exact = exact_shapley(GAME, *where, target=(0, 1))
    for options, message in (
        ({"previous": of[lime]}, "index must be Banzhaf for the coalitions of lime, .* k-SII dep"),
        ({"previous": of[banzhaf], "index": "STII"}, "coalitions of banzhaf.*kernelshap, or none"),
        ({"previous": biased, "index": "Banzhaf"}, "keep_probability=0.5, .*; got 0.3"),
        ({"previous": orders}, "must come from lime, .*; it comes from permutation_shapley"),
        ({"previous": pixels}, "it comes from rise"),
        ({"previous": exact}, "previous must be an attribution that has samples"),
        ({"previous": of[kernelshap], "key": jax.random.key(1)}, "another key; pass the same"),
        ({"previous": of[kernelshap], "target": 0}, r"for target \(0, 1\), this call for 0"),
        ({"previous": of[kernelshap], "num_samples": 120}, "more samples than are asked for"),
    ):
        with pytest.raises(ValueError, match=message):
            explain(GAME, 8, **options)
    with pytest.raises(ValueError, match="other segments"):
        interactions(
            GAME, where[0], strip(8)[:, ::-1], key=KEY, previous=of[kernelshap], target=(0, 1)
        )


def test_samples_too_few_for_the_pairs_are_refused():
    with pytest.raises(
        ValueError, match=r"num_samples must be 116 or more for .* 8 segments; got 115"
    ):
        explain(GAME, 8, num_samples=115)
    with pytest.raises(ValueError, match=r"num_samples must be 74 or more .* got 73; .*merge"):
        explain(GAME, 8, num_samples=73, index="Banzhaf")
    for index, fewest in (("k-SII", 118), ("Banzhaf", 75)):
        with pytest.raises(ValueError, match=f"evaluations must be {fewest} or more .* got 70"):
            explain(GAME, 8, evaluations=70, index=index)
        assert explain(GAME, 8, evaluations=fewest, index=index).num_variants == fewest
    few = explain(GAME, 8, method=kernelshap, num_samples=60)
    with pytest.raises(
        ValueError, match=r"previous has 60 samples, .* need 116: pass num_samples=116"
    ):
        explain(GAME, 8, previous=few)
    found = explain(GAME, 8, previous=few, num_samples=140)
    np.testing.assert_allclose(found.pairs, explain(GAME, 8, num_samples=140).pairs, atol=1e-6)


def test_coalitions_that_are_all_alike_are_an_error():
    keep = np.random.default_rng(0).random((80, 5)) < 0.5
    keep[:, 3] = keep[:, 1]
    with pytest.raises(ValueError, match="num_samples must be higher: too few of these coalitions"):
        from_uniform(INDICES["Banzhaf"], keep, np.ones((80, 1)))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"index": "SII"}, "index must be one of k-SII, STII, Faith-Shapley, Banzhaf; got 'SII'"),
        ({"num_samples": 2.5}, "num_samples must be a whole number, .* got 2.5"),
        ({"num_samples": "many"}, "num_samples must be a whole number"),
        ({"evaluations": 0}, "evaluations must be a whole number, 2 or more"),
        ({"evaluations": 99, "num_samples": 99}, "num_samples and evaluations both say"),
        ({"target": 7}, "target must be from 0 to 2"),
    ],
)
def test_options_out_of_range(options, message):
    with pytest.raises(ValueError, match=message):
        explain(GAME, 8, **options)


def test_a_segment_that_there_is_not_has_no_partners():
    with pytest.raises(ValueError, match=r"segment must be a whole number from 0 to 7 .* got 8"):
        explain(GAME, 8).partners(8)


def test_more_segments_than_memory_allows_is_an_error(monkeypatch):
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=10**9))
    with pytest.raises(ValueError, match=r"400 segments with .* samples need about .*GB"):
        explain(game(np.zeros((2, 2))), 400)

"""Shapley values against their definition in plain loops, and what all methods share."""

import itertools
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lmjax.attribution import banzhaf, exact_shapley, kernelshap, permutation_shapley
from lmjax.attribution.banzhaf import difference_of_means
from lmjax.attribution.kernelshap import estimate_from_pairs
from lmjax.attribution.shapley import contributions, shapley_weights
from lmjax.evaluation import Evaluator, Predictor
from lmjax.masks import (
    all_coalitions,
    prefixes,
    random_orders,
    segments,
    shapley_keep,
    shapley_kernel,
)
from lmjax.removals import LayerMasking, Replace
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
# Few enough samples that nothing is exact.
METHODS = {
    "exact": (exact_shapley, {}),
    "permutations": (permutation_shapley, {"num_permutations": 4}),
    "one way": (permutation_shapley, {"num_permutations": 4, "antithetic": False}),
    "kernelshap": (kernelshap, {"num_samples": 20}),
}


def explain(method, network, num_segments, *, key=KEY, target=(0, 1), objective="logit", **options):
    if method is not exact_shapley:
        options["key"] = key
    where = picture(num_segments), strip(num_segments)
    return method(network, *where, target=target, objective=objective, **options)


def by(name, table):
    method, options = METHODS[name]
    return explain(method, game(table), 5, **options).scores


examples = settings(max_examples=10, deadline=None)


# -- axioms


@given(TABLES)
@examples
def test_exact_values_are_those_of_the_definition(table):
    np.testing.assert_allclose(by("exact", table), shapley_by_loop(table), atol=1e-5)


@pytest.mark.parametrize("name", METHODS)
@given(TABLES)
@examples
def test_efficiency(name, table):
    total = by(name, table).sum(axis=1)
    np.testing.assert_allclose(total, table[-1] - table[0], atol=1e-4)


@given(TABLES)
@examples
def test_symmetry(table):
    bits = np.arange(32)
    swapped = bits & ~3 | (bits & 1) << 1 | (bits & 2) >> 1
    scores = by("exact", table + table[swapped])
    np.testing.assert_allclose(scores[:, 0], scores[:, 1], atol=1e-5)


@pytest.mark.parametrize("name", ["exact", "permutations", "one way"])  # whatever the sample
@given(TABLES, st.integers(0, 4))
@examples
def test_a_segment_without_effect_scores_nothing(name, table, segment):
    scores = by(name, table[np.arange(32) & ~(1 << segment)])
    np.testing.assert_allclose(scores[:, segment], 0, atol=1e-5)


@pytest.mark.parametrize("name", METHODS)
@given(TABLES, TABLES)
@examples
def test_linearity(name, one, other):
    together = by(name, one - 2 * other)
    np.testing.assert_allclose(together, by(name, one) - 2 * by(name, other), atol=1e-3)


# -- estimates that use everything are exact


@given(TABLES)
@examples
def test_all_orders_give_the_exact_values(table):
    orders = np.array(list(itertools.permutations(range(5))))
    rows = prefixes(orders).reshape(-1, 5) @ 2 ** np.arange(5)
    scores = contributions(orders[:, None], table[rows], table[0], table[-1]).mean(axis=0)
    np.testing.assert_allclose(scores, shapley_by_loop(table), atol=1e-12)


@pytest.mark.parametrize("num_segments", [1, 2, 3])
def test_few_segments(num_segments):
    table = smooth_table(num_segments)
    exact = shapley_by_loop(table)[:2]
    network = game(table)
    several = explain(permutation_shapley, network, num_segments, num_permutations=200)
    for found in (
        explain(exact_shapley, network, num_segments),
        explain(kernelshap, network, num_segments),
    ):
        np.testing.assert_allclose(found.scores, exact, atol=1e-6)
    error = np.abs(several.scores - exact)
    assert (error <= 4 * several.standard_error + 1e-6).all()


# -- estimates from samples


@pytest.mark.parametrize(
    ("method", "options"),
    [
        (permutation_shapley, {"num_permutations": 20}),
        (permutation_shapley, {"num_permutations": 20, "antithetic": False}),
        (kernelshap, {"num_samples": 120}),
        (banzhaf, {"num_samples": 150}),
    ],
)
def test_standard_errors_are_as_large_as_errors(method, options):
    table = smooth_table(8, num_classes=2)
    exact = banzhaf_by_loop(table) if method is banzhaf else table.T @ shapley_weights(8)
    found = [
        explain(method, game(table), 8, key=jax.random.key(seed), **options) for seed in range(30)
    ]
    errors = np.array([each.scores for each in found]) - exact
    claimed = np.array([each.standard_error for each in found])
    ratio = np.sqrt((errors**2).mean(axis=0) / (claimed**2).mean(axis=0))
    assert 0.8 < np.sqrt((ratio**2).mean()) < 1.2
    assert ratio.max() < 1.5
    bias = errors.mean(axis=0) / (errors.std(axis=0) / np.sqrt(30))
    assert abs(bias).max() < 3.5


@pytest.mark.parametrize(
    ("method", "name", "few"),
    [(permutation_shapley, "num_permutations", 50), (kernelshap, "num_samples", 60)],
)
def test_more_samples_are_nearer(method, name, few):
    table = smooth_table(8)
    exact = table.T[:2] @ shapley_weights(8)
    one, other = (explain(method, game(table), 8, **{name: number}) for number in (few, 4 * few))
    assert 0.35 < (other.standard_error / one.standard_error).mean() < 0.65
    assert abs(other.scores - exact).max() < 4 * other.standard_error.max()


@pytest.mark.parametrize("antithetic", [True, False])
def test_it_is_the_mean_over_its_own_orders(antithetic):
    table = smooth_table(6)
    found = explain(permutation_shapley, game(table), 6, num_permutations=5, antithetic=antithetic)
    added = np.zeros((5, 2, 6))
    for row, order in enumerate(random_orders(6, 5, key=KEY)):
        ways = [order, order[::-1]] if antithetic else [order]
        for way in ways:
            seen = 0
            for segment in way:
                step = table[seen | 1 << segment] - table[seen]
                added[row, :, segment] += step[:2] / len(ways)
                seen |= 1 << segment
    np.testing.assert_allclose(found.scores, added.mean(axis=0), atol=1e-5)
    error = added.std(axis=0, ddof=1) / np.sqrt(5)
    np.testing.assert_allclose(found.standard_error, error, rtol=1e-4)
    assert found.num_variants == 2 + 5 * 5 * (2 if antithetic else 1)


def test_antithetic_orders_leave_nothing_of_pairs_of_segments():
    """A game of segments and pairs of them is exact from any one order, followed both ways."""
    rng = np.random.default_rng(1)
    keep = all_coalitions(6).astype(float)
    pairs = rng.normal(size=(6, 6, 2))
    table = np.einsum("ns,stk,nt->nk", keep, pairs, keep)
    found = explain(permutation_shapley, game(table), 6, num_permutations=2)
    np.testing.assert_allclose(found.scores, table.T @ shapley_weights(6), atol=1e-5)
    np.testing.assert_allclose(found.standard_error, 0, atol=1e-5)
    one_way = explain(permutation_shapley, game(table), 6, num_permutations=2, antithetic=False)
    assert one_way.standard_error.max() > 0.1


ALL = [permutation_shapley, kernelshap, banzhaf, exact_shapley]
FEW = {
    permutation_shapley: {"num_permutations": 10},
    kernelshap: {"num_samples": 100},
    banzhaf: {"num_samples": 200},
    exact_shapley: {},
}
H, W = 8, 6
IMAGE = np.random.default_rng(0).random((H, W, 3)).astype(np.float32)
SEGMENTS = segments.grid(IMAGE, size=2)  # 12 segments
NETWORKS = {  # one each, so that programs compile once
    "replace": Predictor(small_classifier((H, W, 3), num_classes=5), Replace("grey")),
    "layer masking": Predictor(small_classifier((H, W, 3), num_classes=5), LayerMasking()),
}


def on_image(method, network, *, key=KEY, labels=SEGMENTS, image=IMAGE, **options):
    options = {**FEW[method], **options}
    if method is not exact_shapley:
        options["key"] = key
    return method(network, image, labels, **options)


@pytest.mark.parametrize("method", ALL)
def test_a_linear_network_is_recovered(method):
    coefficients = np.random.default_rng(2).normal(size=(H, W, 4)).astype(np.float32)
    truth = np.stack([coefficients[label == SEGMENTS].sum(axis=0) for label in range(12)])

    def linear(image, masks):
        return jnp.einsum("nhw,hwk->nk", masks.astype(jnp.float32), coefficients) + 0.5

    found = on_image(method, linear, target=range(4), objective="logit")
    if method is banzhaf:  # half of all other segments come and go in its samples
        assert (abs(found.scores - truth.T) < 4.5 * found.standard_error).all()
    else:
        np.testing.assert_allclose(found.scores, truth.T, atol=1e-4)
        if method is not exact_shapley:
            np.testing.assert_allclose(found.standard_error, 0, atol=1e-4)


@pytest.mark.parametrize("method", ALL)
def test_a_network_that_reads_one_segment_is_pointed_at(method):
    def one_segment(image, masks):
        seen = masks[:, SEGMENTS == 7].all(axis=1).astype(jnp.float32)
        return jnp.stack([seen, -seen], axis=1)

    found = on_image(method, one_segment, target=0)
    assert found.scores.argmax() == 7
    if method is not banzhaf:
        np.testing.assert_allclose(found.scores[7], jax.nn.sigmoid(2.0) - 0.5, atol=1e-5)
    others = np.delete(found.scores, 7)
    limit = 4.5 * np.delete(found.standard_error, 7) if method is banzhaf else 1e-5
    assert (abs(others) <= limit).all()


@pytest.mark.parametrize("method", ALL)
@pytest.mark.parametrize("removal", ["replace", "layer masking"])
def test_the_batch_size_changes_nothing(method, removal):
    network = NETWORKS[removal]
    one, other, third = (
        on_image(method, Evaluator(network, batch_size=size), target=2) for size in (None, 7, 64)
    )
    for found in (other, third):
        np.testing.assert_allclose(found.scores, one.scores, rtol=1e-4, atol=1e-6)
        assert found.num_variants == one.num_variants
    assert one.heatmap.shape == (H, W)
    np.testing.assert_array_equal(one.heatmap, one.scores[SEGMENTS])


@pytest.mark.parametrize("method", ALL)
def test_targets_together_equal_targets_alone(method):
    network = NETWORKS["replace"]
    together = on_image(method, network, target=(3, 0))
    assert together.scores.shape == (2, 12)
    for row, target in enumerate((3, 0)):
        alone = on_image(method, network, target=target)
        np.testing.assert_allclose(alone.scores, together.scores[row], rtol=1e-4, atol=1e-6)
        assert alone.target == target
    predicted = on_image(method, network)
    assert predicted.target == predicted.predicted_class
    same = on_image(method, network, target=predicted.target)
    np.testing.assert_array_equal(same.scores, predicted.scores)


@pytest.mark.parametrize("method", ALL[:3])
def test_the_key_decides(method):
    network = NETWORKS["replace"]
    one, same, other = (
        on_image(method, network, key=jax.random.key(seed), target=1) for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(one.scores, same.scores)
    np.testing.assert_array_equal(one.standard_error, same.standard_error)
    assert abs(one.scores - other.scores).max() > 1e-4


def pair_of_networks():
    """The same network for Captum and for us, on the image and its five segments."""
    import torch

    rng = np.random.default_rng(5)
    first, second = rng.normal(size=(H, W, 3, 8)), rng.normal(size=(8, 4))

    def network(image, masks):
        images = jnp.where(masks[..., None], image[None], 0)
        hidden = jnp.tanh(jnp.einsum("nhwc,hwcd->nd", images, first.astype(np.float32)))
        return hidden @ second.astype(np.float32)

    def torch_network(images):
        hidden = torch.tanh(torch.einsum("nhwc,hwcd->nd", images, torch.tensor(first)))
        return hidden @ torch.tensor(second)

    labels = segments.boxes(IMAGE, size=1)
    asked = {
        "inputs": torch.tensor(IMAGE[None], dtype=torch.float64),
        "target": 2,
        "feature_mask": torch.tensor(np.repeat(labels[None, ..., None], 3, axis=-1)),
    }
    return network, labels, torch_network, asked


def test_captum_agrees():
    captum = pytest.importorskip("captum.attr")
    network, labels, torch_network, asked = pair_of_networks()
    found = exact_shapley(network, IMAGE, labels, target=2, objective="logit")
    expected = captum.ShapleyValues(torch_network).attribute(**asked)
    np.testing.assert_allclose(found.heatmap, expected[0, ..., 0], atol=1e-4)


@pytest.mark.parametrize("antithetic", [False, True])
def test_captum_agrees_on_the_same_permutations(antithetic):
    captum = pytest.importorskip("captum.attr")
    network, labels, torch_network, asked = pair_of_networks()
    options = {"target": 2, "objective": "logit", "antithetic": antithetic, "num_permutations": 6}
    found = permutation_shapley(network, IMAGE, labels, key=KEY, **options)
    orders = random_orders(5, 6, key=KEY)
    orders = np.concatenate([orders, orders[:, ::-1]]) if antithetic else orders
    sampling = captum.ShapleyValueSampling(torch_network)
    sampling.permutation_generator = lambda num_features, num_samples: orders.tolist()
    expected = sampling.attribute(**asked, n_samples=len(orders))
    np.testing.assert_allclose(found.heatmap, expected[0, ..., 0], atol=1e-4)


def test_captum_draws_coalitions_with_the_weights_of_our_kernel():
    captum = pytest.importorskip("captum.attr")
    import torch

    network, labels, torch_network, asked = pair_of_networks()
    caught = {}

    class Watched(captum.KernelShap):
        def _attribute_kwargs(self, **options):
            caught.update(options)
            return super()._attribute_kwargs(**options)

    torch.manual_seed(0)
    expected = Watched(torch_network).attribute(
        **asked, n_samples=1000, perturbations_per_eval=1000
    )
    sizes = caught["num_select_distribution"].probs
    np.testing.assert_allclose(sizes, np.append(0, shapley_kernel(5)), rtol=1e-6)
    found = kernelshap(network, IMAGE, labels, key=KEY, target=2, objective="logit")
    # All coalitions here, 1000 random ones there.
    error = abs(found.heatmap - expected[0, ..., 0].numpy()).max()
    assert error < 0.1 * np.ptp(found.scores)


# -- speed: no Python per sample


def python_calls(function, *arguments) -> int:
    calls = 0

    def count(frame, event, argument):
        nonlocal calls
        calls += event in ("call", "c_call")

    sys.setprofile(count)
    try:
        function(*arguments)
    finally:
        sys.setprofile(None)
    return calls


def test_estimates_have_no_python_loop_over_samples_or_targets():
    rng = np.random.default_rng(0)

    def arguments(samples, targets):
        keep = shapley_keep(50, samples, key=KEY, smallest=2)
        pairs = rng.random((1 + 2 * (50 + samples), targets)).astype(np.float32)
        orders = np.stack([random_orders(50, samples // 20, key=KEY)] * 2, axis=1)
        walks = rng.random((2 * (samples // 20) * 49, targets)).astype(np.float32)
        whole = np.ones(targets, np.float32)
        return (
            (estimate_from_pairs, keep, pairs, whole),
            (difference_of_means, keep, pairs[:samples]),
            (contributions, orders, walks, whole, whole),
        )

    for few, many in zip(arguments(200, 2), arguments(1000, 10)):
        few[0](*few[1:])
        assert python_calls(*many) == python_calls(*few) < 500


# -- bad input


@pytest.mark.parametrize(
    ("method", "options", "message"),
    [
        (exact_shapley, {"labels": segments.grid(IMAGE, size=1)}, "at most 12.* got 48; .*merge"),
        (permutation_shapley, {"num_permutations": 1}, "num_permutations must be .* got 1"),
        (permutation_shapley, {"num_permutations": 2.5}, "num_permutations must be .* got 2.5"),
        (
            kernelshap,
            {"num_samples": 27},
            "num_samples must be .* 28 or more .for 12 segments.; .*27",
        ),
        (banzhaf, {"num_samples": 31}, "num_samples must be .* 32 or more; got 31"),
        *((method, {"target": 5}, "network has 5 classes; got 5") for method in ALL),
        *((method, {"objective": "odds"}, "got 'odds'") for method in ALL),
        *((method, {"labels": SEGMENTS + 1}, "missing 0") for method in ALL),
        *((method, {"labels": SEGMENTS.T}, "like the image") for method in ALL),
        *((method, {"image": IMAGE[..., 0]}, r"image must be \[H, W, C\]") for method in ALL),
    ],
)
def test_bad_input_is_an_error(method, options, message):
    network = NETWORKS["replace"]
    with pytest.raises(ValueError, match=message):
        on_image(method, network, **options)

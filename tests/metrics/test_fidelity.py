"""Fidelity metrics against plain loops, scipy, Captum and networks that add up."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

import lmjax
from lmjax.evaluation import Evaluator, Predictor
from lmjax.masks import Coalitions, families, segments
from lmjax.metrics import fidelity as module
from lmjax.metrics import infidelity, mu_fidelity, necessity, sensitivity_n, sufficiency
from tests.support.small_classifier import small_classifier

RNG = np.random.default_rng(0)
H, W = 8, 7
IMAGE = RNG.random((H, W, 3)).astype(np.float32)
HEATMAP = RNG.normal(size=(H, W))
SEGMENTS = segments.grid(IMAGE, size=2)  # 4 x 4, the last column 1 pixel wide
S = 16
SUMS = np.array([HEATMAP[label == SEGMENTS].sum() for label in range(S)])
CLASSIFIER = small_classifier((H, W, 3), num_classes=5)
PREDICTOR = Predictor(CLASSIFIER, lmjax.Replace("black"))
KEY = jax.random.key(3)
WEIGHTS = RNG.normal(size=(H, W)).astype(np.float32)


@jax.jit
def classify(picture):
    return jax.nn.softmax(CLASSIFIER.apply(CLASSIFIER.normalise(picture[None])))[0]


def probabilities(mask):
    """Of one picture, black where the mask is 0."""
    return np.asarray(classify(IMAGE * mask[..., None]))


WHOLE = probabilities(np.ones((H, W), np.float32))


def adding_up(image, masks):
    """A network whose first logit is the sum of the weights of visible pixels."""
    shown = (masks * jnp.asarray(WEIGHTS)[None]).sum(axis=(1, 2))
    return jnp.stack([shown, -2 * shown], axis=1)


def reading_one_segment(image, masks):
    shown = masks[:, 0, 0].astype(jnp.float32)
    return jnp.stack([3 * shown, jnp.zeros_like(shown)], axis=1)


# -- subsets


def test_subsets_have_their_sizes_and_are_equally_likely():
    hidden = module._random_subsets(5, [1, 2, 4], 4000, KEY)
    sizes = hidden.sum(axis=2)
    np.testing.assert_array_equal(sizes, np.repeat([[1], [2], [4]], 4000, axis=1))
    pairs = hidden[1] @ 2 ** np.arange(5)
    counts = np.unique(pairs, return_counts=True)[1]
    assert len(counts) == 10
    assert scipy.stats.chisquare(counts).pvalue > 1e-3


@pytest.mark.parametrize("shape", [(224, 224), (30, 19), (8, 7), (9, 1)])
def test_cells_are_a_grid_of_nine_or_fewer_a_side(shape):
    cells = segments.even_grid(shape, tuple(np.minimum(shape, 9)))
    assert cells.shape == shape
    sizes = np.bincount(cells.ravel())
    assert len(sizes) == np.prod(np.minimum(shape, 9))
    assert sizes.min() > 0
    rows = [len(np.unique(row)) for row in cells]
    assert set(rows) == {min(shape[1], 9)}


# -- MuFidelity and sensitivity-n


def loop(hidden, heatmap, labels, target):
    sums, drops = [], []
    for row in hidden:
        gone = row[labels]
        sums.append(heatmap[gone].sum())
        drops.append(WHOLE[target] - probabilities(1 - gone)[target])
    return sums, drops


@pytest.mark.parametrize(
    ("correlation", "scipys"),
    [("pearson", scipy.stats.pearsonr), ("spearman", scipy.stats.spearmanr)],
)
def test_mu_fidelity_is_that_of_a_plain_loop(correlation, scipys):
    (hidden,) = module._random_subsets(S, [3], 50, KEY)
    sums, drops = loop(hidden, HEATMAP, SEGMENTS, 2)
    options = {"key": KEY, "num_subsets": 50, "correlation": correlation, "segments": SEGMENTS}
    found = mu_fidelity(PREDICTOR, IMAGE, HEATMAP, target=2, **options)
    assert found == pytest.approx(scipys(sums, drops).statistic, abs=1e-4)
    assert mu_fidelity(PREDICTOR, IMAGE, SUMS, target=2, **options) == pytest.approx(found)
    several = mu_fidelity(PREDICTOR, IMAGE, HEATMAP, target=[0, 2], **options)
    assert several.shape == (2,)
    assert several[1] == pytest.approx(found)


def test_mu_fidelity_hides_a_fifth_of_81_cells():
    image = RNG.random((20, 18, 3)).astype(np.float32)
    seen = []

    def network(image, masks):
        jax.debug.callback(lambda m: seen.append(np.asarray(m)), masks)
        return masks.mean(axis=(1, 2))[:, None]

    heatmap = RNG.normal(size=(20, 18))
    mu_fidelity(Evaluator(network, batch_size=256), image, heatmap, key=KEY, objective="logit")
    jax.effects_barrier()
    masks = np.concatenate(seen)[:201]
    cells = segments.even_grid((20, 18), 9)
    np.testing.assert_array_equal(masks[0], 1)
    for mask in masks[1:]:
        assert len(np.unique(cells[~mask])) == 16
        assert not set(np.unique(cells[~mask])) & set(np.unique(cells[mask]))


def test_sensitivity_n_is_that_of_a_plain_loop():
    hidden = module._random_subsets(S, [1, 5, 12], 40, KEY).reshape(-1, S)
    sums, drops = np.reshape(loop(hidden, HEATMAP, SEGMENTS, 1), (2, 3, 40))
    expected = [scipy.stats.pearsonr(a, b).statistic for a, b in zip(sums, drops)]
    options = {"key": KEY, "num_subsets": 40, "sizes": [1, 5, 12], "segments": SEGMENTS}
    found = sensitivity_n(PREDICTOR, IMAGE, HEATMAP, target=1, **options)
    np.testing.assert_allclose(found.correlations, expected, atol=1e-4)
    np.testing.assert_array_equal(found.sizes, [1, 5, 12])
    several = sensitivity_n(PREDICTOR, IMAGE, HEATMAP, target=[1, 0], **options)
    assert several.correlations.shape == (2, 3)
    np.testing.assert_allclose(several.correlations[0], expected, atol=1e-4)


def test_sensitivity_n_takes_pixels_and_sizes_to_four_fifths():
    found = sensitivity_n(adding_up, IMAGE, WEIGHTS, key=KEY, target=0, objective="logit")
    assert (found.sizes[0], found.sizes[-1], len(found.sizes)) == (1, 44, 10)
    np.testing.assert_allclose(found.correlations, 1, atol=1e-5)
    few = sensitivity_n(
        adding_up, IMAGE, [1.0, 2.0], key=KEY, segments=SEGMENTS // 8, objective="logit"
    )
    np.testing.assert_array_equal(few.sizes, [1])
    with pytest.raises(ValueError, match="segments must be two or more"):
        sensitivity_n(adding_up, IMAGE, [1.0], key=KEY, segments=SEGMENTS * 0, objective="logit")


@pytest.mark.parametrize("labels", [SEGMENTS, None])
def test_where_scores_add_up_correlations_are_one(labels):
    options = {"key": KEY, "segments": labels, "objective": "logit"}
    found = mu_fidelity(adding_up, IMAGE, WEIGHTS, target=[0, 1], **options)
    np.testing.assert_allclose(found, [1, -1], atol=1e-5)
    found = sensitivity_n(adding_up, IMAGE, -WEIGHTS, target=0, **options)
    np.testing.assert_allclose(found.correlations, -1, atol=1e-5)


def test_a_network_that_reads_one_segment_and_maps_that_see_it_or_not():
    right = np.zeros(S)
    right[0] = 1
    options = {"key": KEY, "segments": SEGMENTS, "target": 0}
    assert mu_fidelity(reading_one_segment, IMAGE, right, **options) == pytest.approx(1)
    assert abs(mu_fidelity(reading_one_segment, IMAGE, 1 - right, **options) + 1) < 1e-9
    assert mu_fidelity(reading_one_segment, IMAGE, np.roll(right, 3), **options) < 0.3


def test_a_map_or_a_network_that_says_nothing_has_no_correlation():
    options = {"key": KEY, "segments": SEGMENTS}
    for correlation, score in itertools.product(("pearson", "spearman"), (0, 0.1, 0.7)):
        alike = np.full(S, score)
        assert np.isnan(mu_fidelity(PREDICTOR, IMAGE, alike, correlation=correlation, **options))
    assert np.isnan(sensitivity_n(PREDICTOR, IMAGE, np.full(S, 0.1), **options).correlations).all()

    def constant(image, masks):
        return jnp.ones((len(masks), 2))

    assert np.isnan(sensitivity_n(constant, IMAGE, HEATMAP, **options).correlations).all()


def test_a_subset_never_holds_all_regions():
    options = {"key": KEY, "segments": np.arange(W)[None] // 4 + np.zeros((H, 1), int)}
    found = mu_fidelity(adding_up, IMAGE, [1.0, 2.0], share=0.9, objective="logit", **options)
    expected = mu_fidelity(adding_up, IMAGE, [1.0, 2.0], share=0.5, objective="logit", **options)
    assert found == expected
    assert abs(found) == pytest.approx(1)


# -- infidelity


MASKS = RNG.random((30, H, W)) < 0.7
CORNERS = np.argwhere(np.ones((H - 2, W - 2)))
FAMILIES = {
    "masks": (MASKS, MASKS),
    "windows": (
        families.Windows((H, W), CORNERS, (3, 3)),
        np.array(families.Windows((H, W), CORNERS, (3, 3)).masks()),
    ),
    "coalitions": (
        Coalitions(SEGMENTS, MASKS[:, 0, :1].repeat(S, 1) ^ (RNG.random((30, S)) < 0.5)),
        None,
    ),
}


@pytest.mark.parametrize("pixels", [1, 400, 2**24])
@pytest.mark.parametrize("rescale", [False, True])
@pytest.mark.parametrize("name", FAMILIES)
def test_infidelity_is_that_of_a_plain_loop(name, rescale, pixels, monkeypatch):
    monkeypatch.setattr(families, "_PIXELS", pixels)
    family, masks = FAMILIES[name]
    masks = family.keep[:, SEGMENTS] if masks is None else masks
    sums = np.array([sum(HEATMAP[~mask]) for mask in masks])
    drops = np.array([WHOLE[2] - probabilities(mask)[2] for mask in masks])
    factor = np.linalg.lstsq(sums[:, None], drops)[0][0] if rescale else 1
    expected = np.mean((factor * sums - drops) ** 2)
    found = infidelity(PREDICTOR, IMAGE, HEATMAP, family, target=2, rescale=rescale)
    assert found == pytest.approx(expected, rel=1e-4)
    several = infidelity(PREDICTOR, IMAGE, HEATMAP, family, target=[2, 0], rescale=rescale)
    assert several.shape == (2,)
    assert several[0] == pytest.approx(expected, rel=1e-4)


def test_scores_that_add_up_have_no_infidelity():
    keep = RNG.random((40, S)) < 0.5
    scores = np.array([WEIGHTS[label == SEGMENTS].sum() for label in range(S)])
    options = {"target": 0, "objective": "logit"}
    for heatmap, masks in ((scores, Coalitions(SEGMENTS, keep)), (WEIGHTS, MASKS)):
        assert infidelity(adding_up, IMAGE, heatmap, masks, **options) < 1e-10
        assert infidelity(adding_up, IMAGE, 3 * heatmap, masks, **options) > 1
        rescaled = infidelity(adding_up, IMAGE, 3 * heatmap, masks, rescale=True, **options)
        assert rescaled < 1e-10
    nothing = infidelity(adding_up, IMAGE, 0 * WEIGHTS, MASKS, rescale=True, **options)
    drops = [WEIGHTS[~mask].sum() for mask in MASKS]
    assert nothing == pytest.approx(np.mean(np.square(drops)), rel=1e-5)


@pytest.mark.parametrize(
    ("heatmap", "masks"),
    [
        (np.zeros(S), Coalitions(SEGMENTS, np.zeros((0, S), bool))),
        (np.zeros((H, W)), np.zeros((0, H, W), bool)),
    ],
    ids=["coalitions", "masks"],
)
def test_infidelity_of_no_variant_is_an_error(heatmap, masks):
    with pytest.raises(ValueError, match="masks must hold at least one variant, got none"):
        infidelity(adding_up, IMAGE, heatmap, masks, target=0)


@pytest.mark.parametrize("rescale", [False, True])
def test_infidelity_agrees_with_captum(rescale):
    torch = pytest.importorskip("torch")
    captum = pytest.importorskip("captum.metrics")
    image = RNG.random((H, W, 1)).astype(np.float32)
    weights = RNG.normal(size=(H, W, 3)).astype(np.float32) / 4

    def network(image, masks):
        return jnp.tanh(jnp.einsum("nhw,hwk->nk", image[None, ..., 0] * masks, weights))

    def forward(images):
        return torch.tanh(torch.einsum("nhw,hwk->nk", images, torch.from_numpy(weights)))

    def perturb(images):
        masks = torch.from_numpy(MASKS[: len(images)])
        return (~masks).float(), images * masks

    expected = captum.infidelity(
        forward,
        perturb,
        torch.from_numpy(image[None, ..., 0]),
        torch.from_numpy(HEATMAP[None].astype(np.float32)),
        target=1,
        n_perturb_samples=len(MASKS),
        normalize=rescale,
    )
    found = infidelity(network, image, HEATMAP, MASKS, target=1, rescale=rescale, objective="logit")
    assert found == pytest.approx(expected.item(), rel=1e-4)


# -- sufficiency and necessity


def test_budgets_are_those_of_plain_masks():
    order = sorted(range(H * W), key=lambda pixel: -HEATMAP.ravel()[pixel])
    budgets = (0.02, 0.25, 0.3, 1.0)
    kept, lost = [], []
    for count in (2, 14, 17, 56):  # rounded up: 1.12, 14, 16.8, 56
        top = np.isin(np.arange(H * W), order[:count]).reshape(H, W)
        kept.append(WHOLE[2] - probabilities(top)[2])
        lost.append(WHOLE[2] - probabilities(~top)[2])
    options = {"budgets": budgets, "target": 2}
    np.testing.assert_allclose(
        sufficiency(PREDICTOR, IMAGE, HEATMAP, **options), kept, rtol=1e-3, atol=1e-6
    )
    np.testing.assert_allclose(
        necessity(PREDICTOR, IMAGE, HEATMAP, **options), lost, rtol=1e-3, atol=1e-6
    )
    options["target"] = (0, 2)
    assert sufficiency(PREDICTOR, IMAGE, HEATMAP, **options).shape == (2, 4)
    assert sufficiency(PREDICTOR, IMAGE, HEATMAP).shape == (5,)
    assert necessity(PREDICTOR, IMAGE, HEATMAP, budgets=0.5).shape == (1,)


def test_one_segment_is_sufficient_and_necessary_for_a_network_that_reads_it():
    right = np.zeros(S)
    right[0] = 1
    drop = 1 / (1 + np.exp(-3)) - 0.5
    options = {"segments": SEGMENTS, "target": 0, "budgets": (1 / 16, 0.5)}
    for metric, heatmap, expected in (
        (sufficiency, right, [0, 0]),
        (necessity, right, [drop, drop]),
        (sufficiency, -right, [drop, drop]),
        (necessity, -right, [0, 0]),
    ):
        np.testing.assert_allclose(
            metric(reading_one_segment, IMAGE, heatmap, **options), expected, atol=1e-6
        )


@pytest.mark.parametrize(("count", "budget", "expected"), [(100, 0.07, 7), (56, 0.25, 14)])
def test_a_budget_that_comes_out_even_is_not_rounded_up(count, budget, expected):
    scores = np.arange(count, 0, -1.0)
    image = np.zeros((count, 1, 1), np.float32)

    def counting(image, masks):
        return masks.sum(axis=(1, 2))[:, None].astype(jnp.float32)

    lost = necessity(counting, image, scores[:, None], budgets=budget, objective="logit")
    assert lost == [expected]


# -- all


def test_the_batch_size_changes_nothing():
    options = {"key": KEY, "segments": SEGMENTS, "num_subsets": 20}
    for metric in (
        lambda predictor: mu_fidelity(predictor, IMAGE, HEATMAP, **options),
        lambda predictor: sensitivity_n(predictor, IMAGE, HEATMAP, **options).correlations,
        lambda predictor: infidelity(predictor, IMAGE, HEATMAP, MASKS),
        lambda predictor: sufficiency(predictor, IMAGE, HEATMAP),
        lambda predictor: necessity(predictor, IMAGE, HEATMAP),
    ):
        found = metric(Evaluator(PREDICTOR, batch_size=7))
        np.testing.assert_allclose(found, metric(PREDICTOR), rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(
    ("metric", "options", "message"),
    [
        (mu_fidelity, {"correlation": "cosine"}, "one of pearson, spearman; got 'cosine'"),
        (mu_fidelity, {"share": 0}, "share must be .* above 0 and below 1"),
        (mu_fidelity, {"num_subsets": 1}, "2 or more"),
        (mu_fidelity, {"heatmap": HEATMAP.T}, "like the segments"),
        (mu_fidelity, {"target": 9}, "target must be from 0 to 4"),
        (sensitivity_n, {"sizes": [56]}, "sizes must be a whole number from 1 to 55; got 56"),
        (sensitivity_n, {"sizes": [0]}, "sizes must be"),
        (sensitivity_n, {"segments": np.zeros((H, W), int), "heatmap": [1.0]}, "two or more"),
        (mu_fidelity, {"segments": np.zeros((H, W), int), "heatmap": [1.0]}, "two or more"),
        (infidelity, {"masks": MASKS[0]}, "masks"),
        (infidelity, {"masks": MASKS, "rescale": "no"}, "rescale must be True or False"),
        (infidelity, {"masks": MASKS[:, :4]}, "like the masks"),
        (infidelity, {"masks": MASKS, "heatmap": SUMS}, "need lmjax.Coalitions"),
        (infidelity, {"masks": MASKS, "heatmap": HEATMAP * np.nan}, "NaN"),
        (sufficiency, {"budgets": (0.5, 0.0)}, "budgets must be above 0"),
        (necessity, {"budgets": ()}, "budgets must be above 0"),
        (necessity, {"heatmap": HEATMAP[:4]}, "like the image"),
    ],
)
def test_bad_input_is_an_error(metric, options, message):
    arguments = {"image": IMAGE, "heatmap": HEATMAP, **options}
    if metric in (mu_fidelity, sensitivity_n):
        arguments["key"] = KEY
    with pytest.raises(ValueError, match=message):
        metric(PREDICTOR, **arguments)

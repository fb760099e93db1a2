import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lmjax
from lmjax.attribution import MaskPenalty, extremal_perturbation, meaningful_perturbation
from lmjax.evaluation import Predictor
from lmjax.masks import segments
from tests.support.compilations import counted
from tests.support.masked_functions import double_precision
from tests.support.segment_networks import reads_one
from tests.support.small_classifier import Preprocessing, small_classifier

RNG = np.random.default_rng(0)
H, W, K = 14, 11, 4
IMAGE = RNG.random((H, W, 3)).astype(np.float32)
KEY = jax.random.key(3)
CLASSIFIER = small_classifier((H, W, 3), num_classes=K)
BLACK = Predictor(CLASSIFIER, lmjax.Replace("black"))
MEANINGFUL = {"iterations": 15, "grid": (5, 4), "smooth": 1.0}
EXTREMAL = {"iterations": 15, "step": 3, "sigma": 4.0, "areas": (0.1, 0.4)}


def meaningful(*args, key=KEY, **options):
    return meaningful_perturbation(*args, key=key, **{**MEANINGFUL, **options})


def extremal(*args, **options):
    return extremal_perturbation(*args, **{**EXTREMAL, **options})


ALL = {"meaningful": meaningful, "extremal": extremal}


# -- written a second time, in torch, with its optimisers


def torch_logits(image, masks):
    """`[N, K]` of `BLACK`."""
    import torch

    mean, std = (torch.tensor(each) for each in Preprocessing())
    pictures = (torch.tensor(image)[None] * masks[..., None] - mean) / std
    return torch.einsum("nhwc,hwck->nk", pictures, torch.tensor(CLASSIFIER.weights.tolist())).tanh()


def blur_matrix(size, sigma):
    weights = np.exp(-0.5 * (np.subtract.outer(np.arange(size), np.arange(size)) / sigma) ** 2)
    return weights / weights.sum(axis=1, keepdims=True)


def enlarged(coarse):
    import torch

    large = torch.nn.functional.interpolate(coarse[None, None], (H, W), mode="bilinear")[0, 0]
    rows, columns = (torch.tensor(blur_matrix(n, 1.0), dtype=torch.float32) for n in (H, W))
    return rows @ large @ columns.T


def first_disc(score):
    """The smallest of twenty discs that takes 99% away."""
    import torch

    rows, columns = (abs((np.arange(n) + 0.5) / n - 0.5) for n in (5, 4))
    distance = np.sqrt(rows[:, None] ** 2 + columns[None] ** 2)
    whole, hidden = (score(torch.full((5, 4), each)) for each in (1.0, 0.0))
    for radius in np.arange(1, 21) / 20 * distance.max():
        mask = torch.tensor(distance > radius, dtype=torch.float32)
        if score(mask) <= whole - 0.99 * (whole - hidden):
            return mask
    return torch.zeros((5, 4))


@pytest.mark.parametrize("target", [0, 1])
def test_meaningful_perturbation_is_the_optimisation_of_the_paper(target):
    torch = pytest.importorskip("torch")
    penalty = MaskPenalty(l1=0.003, tv=0.02, beta=2.5)

    def score(coarse):
        return torch_logits(IMAGE, enlarged(coarse)[None]).softmax(dim=1)[0, target]

    coarse = first_disc(score).requires_grad_()
    optimiser = torch.optim.Adam([coarse], lr=0.05)
    for _ in range(MEANINGFUL["iterations"]):
        optimiser.zero_grad()
        differences = [coarse[1:] - coarse[:-1], coarse[:, 1:] - coarse[:, :-1]]
        variation = sum(each.abs().pow(2.5).sum() for each in differences)
        (score(coarse) + 0.003 * (1 - coarse).sum() + 0.02 * variation).backward()
        optimiser.step()
        coarse.data.clamp_(0, 1)
    options = {"jitter": 1, "learning_rate": 0.05, "penalty": penalty}
    found = meaningful(BLACK, IMAGE, target=target, **options)
    np.testing.assert_allclose(found.scores, 1 - enlarged(coarse).detach(), atol=2e-3)
    assert found.num_variants == MEANINGFUL["iterations"] + 20 + 1


def smooth_masks(nodes, step, sigma):
    """The smooth maximum over the nodes within reach of each pixel."""
    import torch

    reach = 1 + int(np.ceil(sigma / step))
    near, weights = [], []
    for pixel in np.ndindex(H, W):
        for node in np.ndindex(2 * reach + 1, 2 * reach + 1):
            cell = [p // step + n - reach for p, n in zip(pixel, node)]
            centre = [c * step + (step - 1) / 2 for c in cell]
            near.append([min(max(c, 0), n - 1) for c, n in zip(cell, nodes.shape[1:])])
            weights.append(np.exp(-2 * max(math.dist(pixel, centre) / sigma - 0.5, 0) ** 2))
    rows, columns = np.transpose(near)
    seen = nodes[:, rows, columns] * torch.tensor(np.float32(weights))
    seen = seen.reshape(len(nodes), H, W, -1)
    return (seen * (20 * seen).softmax(dim=-1)).sum(dim=-1)


def in_shares(values, template):
    """A template for values in order, its ones shared by values that are equal."""
    return [template[abs(values - each) <= 1e-3].mean() for each in values]


@pytest.mark.parametrize("mirror", [True, False])
def test_extremal_perturbation_is_the_optimisation_of_the_paper(mirror):
    torch = pytest.importorskip("torch")
    nodes = torch.ones((2, 5, 4), requires_grad=True)
    template = (np.arange(H * W) >= np.round((1 - np.array([[0.1], [0.4]])) * H * W)).astype(float)
    optimiser = torch.optim.SGD([nodes], lr=0.1 * 0.05, momentum=0.9)
    weight = 300.0
    for t in range(6):
        optimiser.zero_grad()
        masks = smooth_masks(nodes, 3, 4.0)
        picture, shown = IMAGE, masks
        if mirror and t % 2 == 0:
            picture, shown = IMAGE[:, ::-1].copy(), masks.flip(2)
        values = masks.reshape(2, -1).sort(dim=1).values
        wanted = [in_shares(*each) for each in zip(values.detach().numpy(), template)]
        area = (values - torch.tensor(np.float32(wanted))).square().mean(dim=1).sum()
        (weight * area - torch_logits(picture, shown)[:, 2].sum()).backward()
        optimiser.step()
        nodes.data.clamp_(0, 1)
        weight *= 1.0035
    options = {"iterations": 6, "learning_rate": 0.05, "mirror": mirror}
    found = extremal(BLACK, IMAGE, target=2, **options)
    expected = smooth_masks(nodes.detach(), 3, 4.0).sum(dim=0)
    np.testing.assert_allclose(found.scores, expected, atol=2e-3)
    assert np.ptp(found.scores) > 0.05
    assert found.num_variants == 2 * 6 + 1


# -- what they are for

LARGE = np.full((32, 32, 3), 0.5, np.float32)
LABELS = segments.grid(LARGE, size=8)  # 16 segments
IN_USE = {
    "meaningful": {
        **{"grid": 16, "smooth": 0.0, "iterations": 150},
        "penalty": MaskPenalty(l1=1e-3, tv=1e-3),
    },
    "extremal": {"areas": (1 / 16, 1 / 8), "step": 4, "sigma": 6.0, "iterations": 200},
}


@pytest.mark.parametrize("name", ALL)
def test_a_network_that_reads_one_segment_is_pointed_at(name):
    segment = 11
    found = ALL[name](reads_one(LABELS, segment), LARGE, target=0, **IN_USE[name])
    means = np.array([found.scores[label == LABELS].mean() for label in range(16)])
    assert means.argmax() == segment
    assert means[segment] > 1.5 * np.delete(means, segment).max()


@pytest.mark.parametrize("area", [0.1, 0.3])
def test_a_mask_keeps_its_area(area):
    found = extremal(BLACK, IMAGE, areas=[area], iterations=300, step=2, sigma=2.0)
    assert abs(found.scores.mean() - area) < 0.05
    assert 0 <= found.scores.min() < 0.1
    assert 0.8 < found.scores.max() <= 1


def test_more_steps_do_not_lose_what_was_found():
    """The penalty of the area would grow thirtyfold every 1,000 steps."""
    options = {**IN_USE["extremal"], "areas": (1 / 16,)}

    def inside(iterations):
        options["iterations"] = iterations
        scores = extremal(reads_one(LABELS, 11), LARGE, target=0, **options).scores
        return scores[LABELS == 11].sum() / scores.sum()

    assert inside(4000) > 0.9 * inside(800)


def test_the_mask_of_meaningful_perturbation_lowers_the_output_more_than_its_reverse():
    found = meaningful(BLACK, IMAGE, target=0, iterations=100, smooth=0.0)
    masks = 1 - np.stack([np.zeros((H, W)), found.scores, found.scores[::-1, ::-1]])
    whole, lowered, reverse = jax.nn.softmax(BLACK(IMAGE, np.float32(masks)))[:, 0]
    assert lowered < min(whole, reverse)
    assert 0 <= found.scores.min() <= found.scores.max() <= 1


def test_more_weight_hides_less():
    light, heavy = (
        meaningful(BLACK, IMAGE, target=0, penalty=MaskPenalty(l1=l1, tv=0.0)) for l1 in (1e-4, 0.1)
    )
    assert heavy.scores.sum() < light.scores.sum()


# -- what holds for both


@pytest.mark.parametrize("name", ALL)
def test_several_targets_are_each_alone(name):
    found = ALL[name](BLACK, IMAGE, target=[2, 0])
    assert found.target == (2, 0)
    assert found.scores.shape == found.heatmap.shape == (2, H, W)
    alone = ALL[name](BLACK, IMAGE, target=2)
    np.testing.assert_allclose(found.scores[0], alone.scores, atol=1e-4)
    assert np.ptp(found.scores[0] - found.scores[1]) > 0.01


@pytest.mark.parametrize("name", ALL)
def test_numbers_of_64_bits_change_nothing(name):
    expected = ALL[name](BLACK, IMAGE, target=1)
    with double_precision():
        found = ALL[name](BLACK, IMAGE, target=1)
    np.testing.assert_allclose(found.scores, expected.scores, atol=1e-4)


def test_the_key_decides_how_the_image_moves():
    first, again, other, still = (
        meaningful(BLACK, IMAGE, target=1, key=jax.random.key(seed), jitter=jitter)
        for seed, jitter in ((0, 4), (0, 4), (1, 4), (0, 1))
    )
    np.testing.assert_array_equal(first.scores, again.scores)
    assert np.abs(first.scores - other.scores).max() > 1e-3
    assert np.abs(first.scores - still.scores).max() > 1e-3


@pytest.mark.parametrize("name", ALL)
def test_weights_and_images_compile_nothing_anew(name):
    def explain(seed):
        weights = jax.random.normal(jax.random.key(seed), CLASSIFIER.weights.shape) / 16
        classifier = dataclasses.replace(CLASSIFIER, weights=weights)
        predictor = Predictor(classifier, lmjax.Replace("blur", sigma=2.0))
        return ALL[name](predictor, IMAGE / (seed + 1), target=seed)

    explain(0)
    with counted() as compiled:
        explain(1)
    assert not compiled


@pytest.mark.parametrize("name", ALL)
def test_removals_without_half_hidden_pixels_are_refused(name):
    layer_masking = Predictor(CLASSIFIER, lmjax.LayerMasking())
    with pytest.raises(ValueError, match="takes binary masks only"):
        ALL[name](layer_masking, IMAGE)
    # Plain functions do not say; their gradients do.
    with pytest.raises(ValueError, match="masks must be 0 or 1 here"):
        ALL[name](lambda image, masks: layer_masking(image, masks), IMAGE, target=0)
    with pytest.raises(ValueError, match="no gradient with respect to its masks"):
        ALL[name](lambda image, masks: layer_masking(image, masks > 0.5), IMAGE, target=0)


def test_a_map_made_binary_can_be_asked_about_under_layer_masking():
    found = extremal(BLACK, IMAGE, target=0)
    mask = found.heatmap >= np.quantile(found.heatmap, 0.9)
    assert 0.08 < mask.mean() < 0.15
    layer_masking = Predictor(CLASSIFIER, lmjax.LayerMasking())
    logits = lmjax.evaluate(layer_masking, IMAGE, np.stack([mask, ~mask]))
    hidden = jnp.where(mask[..., None], CLASSIFIER.normalise(IMAGE), 0)
    np.testing.assert_allclose(logits[0], CLASSIFIER.apply(hidden[None])[0], atol=1e-6)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("meaningful", {"iterations": 0}, "iterations must be a whole number, 1 or more; got 0"),
        ("meaningful", {"jitter": 0}, "jitter must be a whole number from 1 to"),
        ("meaningful", {"grid": 28}, "grid must be .* from 2 to 14 and 11 .* got 28"),
        ("meaningful", {"smooth": -1.0}, "smooth must be .* at least 0"),
        ("meaningful", {"learning_rate": 0.0}, "learning_rate must be .* above 0"),
        ("meaningful", {"target": K}, "target must be from 0 to 3"),
        ("extremal", {"areas": ()}, "areas must be one or more shares"),
        ("extremal", {"areas": (0.5, 1.0)}, "areas must be one or more shares"),
        ("extremal", {"sigma": 0.9, "step": 2}, "sigma must be .* at least 1 .*from half of step"),
        ("extremal", {"objective": "loss"}, "objective must be one of"),
    ],
)
def test_bad_options_are_errors(name, options, message):
    with pytest.raises(ValueError, match=message):
        ALL[name](BLACK, IMAGE, **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"l1": -1.0}, "l1 must be .* at least 0"),
        ({"tv": -1.0}, "tv must be .* at least 0"),
        ({"beta": 0.5}, "beta must be .* at least 1"),
    ],
)
def test_a_penalty_out_of_range_is_an_error(options, message):
    with pytest.raises(ValueError, match=message):
        MaskPenalty(**options)

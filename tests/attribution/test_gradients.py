import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lmjax
from lmjax.attribution import (
    expected_gradients,
    gradcam,
    gradient,
    gradient_times_input,
    integrated_gradients,
    smoothgrad,
)
from lmjax.evaluation import Evaluator, Predictor
from lmjax.masks import segments
from lmjax.removals.samples import photographs
from tests.support.compilations import counted
from tests.support.segment_networks import reads_one
from tests.support.small_classifier import small_classifier

RNG = np.random.default_rng(0)
H, W, K = 13, 10, 4
IMAGE = RNG.random((H, W, 3)).astype(np.float32)
KEY = jax.random.key(3)
OTHERS = np.random.default_rng(1).random((5, H, W, 3)).astype(np.float32)
WEIGHTS = {
    "first": RNG.normal(size=(3, 3, 3, 5)).astype(np.float32) / 2,
    "second": RNG.normal(size=(3, 3, 5, 6)).astype(np.float32) / 3,
    "last": RNG.normal(size=(6, K)).astype(np.float32),
}
ALL = {
    "gradient": gradient,
    "gradient times input": gradient_times_input,
    "integrated gradients": integrated_gradients,
    "smoothgrad": lambda *args, **options: smoothgrad(*args, key=KEY, **options),
    "expected gradients": lambda *args, **options: expected_gradients(
        *args, key=KEY, **{"baselines": 0.0, "num_samples": 20, **options}
    ),
}


# -- a small network, here and in torch


def conv(images, kernel, stride):
    dimensions = ("NHWC", "HWIO", "NHWC")
    padding = [(1, 1), (1, 1)]
    return jax.lax.conv_general_dilated(
        images, kernel, (stride, stride), padding, dimension_numbers=dimensions
    )


def features(weights, image):
    x = jax.nn.relu(conv(image[None] - 0.4, weights["first"], 1))
    return jax.nn.relu(conv(x, weights["second"], 2))[0]


def head(weights, activations):
    pooled = jnp.tanh(activations).mean(axis=(0, 1))
    return jnp.matmul(pooled, weights["last"], precision="highest")


def network(weights, image, masks):
    def one(mask):
        return head(weights, features(weights, jnp.where(mask[..., None], image, 0.0)))

    return jax.vmap(one)(masks)


NETWORK = jax.tree_util.Partial(network, WEIGHTS)


class TorchNetwork:
    """The same in torch, with the softmax behind it where probabilities are explained."""

    def __new__(cls, output):
        import torch

        class Module(torch.nn.Module):
            def __init__(self):
                super().__init__()
                self.first = torch.nn.Conv2d(3, 5, 3, padding=1, bias=False)
                self.second = torch.nn.Conv2d(5, 6, 3, stride=2, padding=1, bias=False)
                self.layer = torch.nn.ReLU()
                for name in ("first", "second"):
                    kernel = torch.tensor(WEIGHTS[name]).permute(3, 2, 0, 1)
                    getattr(self, name).weight = torch.nn.Parameter(kernel, requires_grad=False)

            def forward(self, images):
                x = torch.relu(self.first(images - 0.4))
                x = self.layer(self.second(x)).tanh().mean(dim=(2, 3))
                logits = x @ torch.tensor(WEIGHTS["last"])
                return logits.softmax(dim=1) if output == "probability" else logits

        return Module()


def torch_image():
    import torch

    return torch.tensor(IMAGE).permute(2, 0, 1)[None].requires_grad_()


# -- Captum


@pytest.mark.parametrize("output", ["logit", "probability"])
def test_maps_agree_with_captum(output):
    captum = pytest.importorskip("captum.attr")
    model = TorchNetwork(output)
    for target in (0, 3):
        options = {"target": target, "objective": output}
        saliency = captum.Saliency(model).attribute(torch_image(), target=target, abs=False)[0]
        found = gradient(NETWORK, IMAGE, **options)
        np.testing.assert_allclose(found.scores, saliency.abs().amax(dim=0), atol=1e-6)
        found = gradient(NETWORK, IMAGE, channels="sum", **options)
        np.testing.assert_allclose(found.scores, saliency.sum(dim=0), atol=1e-6)

        product = captum.InputXGradient(model).attribute(torch_image(), target=target)[0]
        found = gradient_times_input(NETWORK, IMAGE, **options)
        np.testing.assert_allclose(found.scores, product.detach().sum(dim=0), atol=1e-6)


@pytest.mark.parametrize("baseline", [0.0, (0.1, 0.5, 0.9), RNG.random((H, W, 3))], ids=np.ndim)
def test_integrated_gradients_agree_with_captum(baseline):
    import torch

    captum = pytest.importorskip("captum.attr")
    picture = torch.tensor(np.broadcast_to(np.float32(baseline), IMAGE.shape).copy())
    expected = captum.IntegratedGradients(TorchNetwork("logit")).attribute(
        torch_image(), picture.permute(2, 0, 1)[None], target=2, n_steps=20
    )
    found = integrated_gradients(NETWORK, IMAGE, baseline=baseline, target=2, steps=20)
    np.testing.assert_allclose(found.scores, expected[0].detach().sum(dim=0), atol=1e-6)
    assert found.num_variants == 21


@pytest.mark.parametrize("output", ["logit", "probability"])
def test_gradcam_agrees_with_captum(output):
    captum = pytest.importorskip("captum.attr")
    model = TorchNetwork(output)
    targets = range(K)
    found = gradcam(
        *(jax.tree_util.Partial(each, WEIGHTS) for each in (features, head)),
        IMAGE,
        target=targets,
        objective=output,
    )
    for target, scores in zip(targets, found.scores, strict=True):
        small = captum.LayerGradCam(model, model.layer).attribute(
            torch_image(), target=target, relu_attributions=True
        )
        large = captum.LayerAttribution.interpolate(small.detach(), (H, W), "bilinear")
        np.testing.assert_allclose(scores, large[0, 0], atol=1e-6)
    assert found.scores.any(axis=(1, 2)).sum() >= 2
    np.testing.assert_allclose(found.probability.sum(), 1, rtol=1e-5)


# -- SmoothGrad


@pytest.mark.parametrize("channels", ["max_abs", "sum"])
def test_smoothgrad_is_the_mean_over_noisy_copies(channels):
    found = smoothgrad(
        NETWORK, IMAGE, key=KEY, target=[1, 2], num_samples=11, noise=0.3, channels=channels
    )
    std = 0.3 * (IMAGE.max() - IMAGE.min())
    for target, scores, errors in zip((1, 2), found.scores, found.standard_error):

        @jax.jit
        @jax.grad
        def slope(image, target=target):
            return NETWORK(image, np.ones((1, H, W), bool))[0, target]

        noise = [jax.random.normal(jax.random.fold_in(KEY, i), IMAGE.shape) for i in range(11)]
        slopes = np.array([slope(IMAGE + std * each) for each in noise])
        if channels == "sum":
            slopes = slopes.sum(axis=-1, keepdims=True)
            expected = slopes.mean(axis=0)[..., 0]
        else:
            expected = abs(slopes.mean(axis=0)).max(axis=-1)
        np.testing.assert_allclose(scores, expected, atol=1e-6)
        largest = abs(slopes.mean(axis=0)).argmax(axis=-1)[None, ..., None]
        chosen = np.take_along_axis(slopes, largest, axis=-1)[..., 0]
        np.testing.assert_allclose(errors, chosen.std(axis=0, ddof=1) / 11**0.5, atol=1e-6)


@pytest.mark.parametrize(
    ("method", "options"),
    [(smoothgrad, {"channels": "sum"}), (expected_gradients, {"baselines": OTHERS})],
)
def test_standard_errors_are_those_of_other_keys(method, options):
    options |= {"target": 1, "num_samples": 20}
    runs = [method(NETWORK, IMAGE, key=jax.random.key(i), **options) for i in range(30)]
    spread = np.std([run.scores for run in runs], axis=0, ddof=1)
    claimed = np.mean([run.standard_error for run in runs], axis=0)
    assert 0.8 < np.median(spread / claimed) < 1.25


# -- expected gradients


@pytest.mark.parametrize("objective", ["logit", "probability"])
def test_expected_gradients_are_captums_with_the_same_draws(monkeypatch, objective):
    import torch

    captum, number = pytest.importorskip("captum.attr"), 12
    keys = [jax.random.split(jax.random.fold_in(KEY, i)) for i in range(number)]
    chosen = np.array([jax.random.randint(key, (), 0, len(OTHERS)) for key, _ in keys])
    points = np.array([1 - jax.random.uniform(key) for _, key in keys])
    monkeypatch.setattr(np.random, "choice", lambda *_: chosen)
    monkeypatch.setattr(np.random, "uniform", lambda *_: points)
    expected = captum.GradientShap(TorchNetwork(objective)).attribute(
        torch_image(), torch.tensor(OTHERS).permute(0, 3, 1, 2), n_samples=number, target=2
    )
    options = {"baselines": OTHERS, "num_samples": number, "objective": objective}
    found = expected_gradients(NETWORK, IMAGE, key=KEY, target=2, **options)
    np.testing.assert_allclose(found.scores, expected[0].detach().sum(dim=0), atol=1e-6)
    assert found.num_variants == number + 1


def test_expected_gradients_add_up_to_the_output_less_its_mean_over_the_baselines():
    found = expected_gradients(
        NETWORK, IMAGE, key=KEY, baselines=OTHERS, target=range(K), num_samples=300
    )
    whole, *others = (NETWORK(x, np.ones((1, H, W), bool))[0] for x in (IMAGE, *OTHERS))
    errors = np.sqrt((found.standard_error**2).sum(axis=(1, 2)))
    difference = found.scores.sum(axis=(1, 2)) - (whole - np.mean(others, axis=0))
    assert (abs(difference) < np.maximum(5 * errors, 0.02)).all()
    assert (abs(whole - np.mean(others, axis=0)) > 0.02).any()


@pytest.mark.parametrize(
    ("removal", "baselines"),
    [
        (lmjax.Replace("black"), 0.0),
        (lmjax.Replace((0.2, 0.4, 0.6)), (0.2, 0.4, 0.6)),
        (lmjax.ReplaceAverage(OTHERS), OTHERS),
        (lmjax.Samples(OTHERS, key=KEY, draws=5), None),
        (lmjax.LayerMasking(), photographs((H, W, 3))),
        (lmjax.removals.Calibrated(lmjax.Replace("white"), jnp.eye(4), jnp.zeros(4)), 1.0),
    ],
    ids=str,
)
def test_baselines_are_what_the_removal_shows(removal, baselines):
    predictor = Predictor(small_classifier((H, W, 3)), removal)
    found = expected_gradients(predictor, IMAGE, key=KEY, target=1, num_samples=8)
    if baselines is None:
        baselines = np.asarray(removal._drawn(IMAGE))
    options = {"baselines": baselines, "target": 1, "num_samples": 8}
    expected = expected_gradients(predictor, IMAGE, key=KEY, **options)
    np.testing.assert_allclose(found.scores, expected.scores, rtol=1e-5, atol=1e-6)


def test_what_is_as_in_the_baseline_scores_nothing():
    hidden = np.indices((H, W)).sum(axis=0) % 3 == 0
    image = np.where(hidden[..., None], np.float32(0.25), IMAGE)
    predictor = Predictor(small_classifier((H, W, 3)), lmjax.Replace((0.25, 0.25, 0.25)))
    found = expected_gradients(predictor, image, key=KEY, target=1, num_samples=8)
    np.testing.assert_array_equal(found.scores[hidden], 0)
    assert found.scores[~hidden].all()


def test_an_image_of_other_channels_needs_baselines():
    def mean(image, masks):
        return jnp.where(masks[..., None], image[None], 0).mean(axis=(1, 2))

    with pytest.raises(ValueError, match=r"baselines must be given for an image of 2 channels"):
        expected_gradients(mean, IMAGE[..., :2], key=KEY)
    found = expected_gradients(mean, IMAGE[..., :2], key=KEY, baselines=0.5, num_samples=4)
    assert np.isfinite(found.scores).all()


# -- what holds for all


@pytest.mark.parametrize("output", ["logit", "probability"])
def test_integrated_gradients_are_complete(output):
    found = integrated_gradients(
        NETWORK, IMAGE, baseline=0.3, target=range(K), steps=200, objective=output
    )
    logits = [NETWORK(x, np.ones((1, H, W), bool))[0] for x in (IMAGE, np.full_like(IMAGE, 0.3))]
    values = [jax.nn.softmax(x) for x in logits] if output == "probability" else logits
    # The network's kinks let the quadrature converge slowly.
    np.testing.assert_allclose(found.scores.sum(axis=(1, 2)), values[0] - values[1], atol=1e-3)


@pytest.mark.parametrize("name", ALL)
def test_a_network_that_reads_one_segment_is_pointed_at(name):
    labels = segments.grid(IMAGE, size=4)
    found = ALL[name](reads_one(labels, 5), IMAGE, target=0)
    inside = labels == 5
    assert (found.scores[inside] > 0).all()
    np.testing.assert_array_equal(found.scores[~inside], 0)


@pytest.mark.parametrize(
    ("name", "removal"),
    [("gradient", lmjax.Replace("grey")), *((name, lmjax.LayerMasking()) for name in ALL)],
    ids=str,
)
def test_a_linear_network_is_known_under_every_removal(name, removal):
    class Linear(type(small_classifier())):
        def apply(self, images, masks=None, *, masking=None):
            if masks is not None:
                images = jnp.where(masks[..., None], images, 0)
            return jnp.einsum("nhwc,hwck->nk", images, self.weights, precision="highest")

    classifier = Linear(small_classifier((H, W, 3)).weights)
    slopes = np.asarray(classifier.weights[..., 1]) / classifier.preprocessing.std
    expected = {
        "gradient": abs(slopes).max(axis=-1),
        "smoothgrad": abs(slopes).max(axis=-1),
        "gradient times input": (slopes * IMAGE).sum(axis=-1),
        "integrated gradients": (slopes * IMAGE).sum(axis=-1),
        "expected gradients": (slopes * IMAGE).sum(axis=-1),
    }
    static = jax.tree_util.Partial(
        lambda image, masks: Predictor(classifier, removal)(image, masks)
    )
    found = ALL[name](static, IMAGE, target=1)
    np.testing.assert_allclose(found.scores, expected[name], rtol=1e-4, atol=1e-5)
    if name in ("smoothgrad", "expected gradients"):
        np.testing.assert_allclose(found.standard_error, 0, atol=1e-3)


@pytest.mark.parametrize("name", ALL)
def test_several_targets_are_each_alone(name):
    found = ALL[name](NETWORK, IMAGE, target=[3, 0])
    assert found.target == (3, 0)
    assert found.scores.shape == found.heatmap.shape == (2, H, W)
    alone = ALL[name](NETWORK, IMAGE)
    assert alone.target == NETWORK(IMAGE, np.ones((1, H, W), bool))[0].argmax() == 3
    assert alone.scores.shape == (H, W)
    np.testing.assert_allclose(found.scores[0], alone.scores, atol=1e-6)


@pytest.mark.parametrize("name", ["integrated gradients", "smoothgrad", "expected gradients"])
def test_the_batch_size_changes_nothing(name):
    expected = ALL[name](NETWORK, IMAGE, target=1)
    for size in (1, 7):
        found = ALL[name](Evaluator(NETWORK, batch_size=size), IMAGE, target=1)
        np.testing.assert_allclose(found.scores, expected.scores, atol=1e-6)


@pytest.mark.parametrize("name", ALL)
def test_weights_and_images_compile_nothing_anew(name):
    first = small_classifier((H, W, 3))

    def explain(seed):
        weights = jax.random.normal(jax.random.key(seed), first.weights.shape)
        predictor = Predictor(dataclasses.replace(first, weights=weights), lmjax.LayerMasking())
        return ALL[name](predictor, IMAGE / (seed + 1), target=seed)

    explain(0)
    with counted() as compiled:
        explain(1)
    assert not compiled


@pytest.mark.parametrize(
    ("method", "options", "message"),
    [
        (gradient, {"channels": "mean"}, "channels must be one of max_abs, sum; got 'mean'"),
        (gradient, {"objective": "loss"}, "objective must be one of"),
        (gradient, {"target": 4}, "target must be from 0 to 3"),
        (integrated_gradients, {"steps": 0}, "steps must be a whole number, 1 or more; got 0"),
        (
            integrated_gradients,
            {"baseline": [0.0, 1.0]},
            "baseline must be a number, a colour of 3",
        ),
        (
            integrated_gradients,
            {"baseline": 2.0},
            r"baseline must hold display colours in \[0, 1\]",
        ),
        (ALL["expected gradients"], {"num_samples": 1}, "num_samples must be a whole number, 2"),
        (
            ALL["expected gradients"],
            {"baselines": OTHERS[:0]},
            r"baselines must be images \['M', 13",
        ),
        (ALL["expected gradients"], {"baselines": OTHERS[:, 1:]}, r"got shape \[5, 12, 10, 3\]"),
        (
            ALL["expected gradients"],
            {"baselines": OTHERS * 9},
            "baselines must hold display colours",
        ),
        (ALL["smoothgrad"], {"num_samples": 1}, "num_samples must be a whole number, 2 or more"),
        (ALL["smoothgrad"], {"noise": 0.0}, "noise must be .* above 0"),
    ],
)
def test_bad_options_are_errors(method, options, message):
    with pytest.raises(ValueError, match=message):
        method(NETWORK, IMAGE, **options)


def test_gradients_that_are_not_finite_are_errors():
    def root(image, masks):
        value = jnp.sqrt(jnp.where(masks[..., None], image, 0).min(axis=(1, 2, 3)))
        return jnp.stack([value, value], axis=1)

    with pytest.raises(ValueError, match="gradients that are NaN or infinite"):
        gradient(root, np.zeros((4, 4, 3), np.float32))


@pytest.mark.parametrize(
    ("functions", "message"),
    [
        ((None, lambda x: x.mean((0, 1))), "features must be a function, got NoneType"),
        ((lambda x: x[None], lambda x: x.mean((0, 1))), r"features must return activations \[h, w"),
        ((lambda x: x, lambda x: x.mean(0)), r"head must return logits \[K\]"),
    ],
)
def test_bad_halves_are_errors(functions, message):
    with pytest.raises(ValueError, match=message):
        gradcam(*functions, IMAGE)

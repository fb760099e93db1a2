import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lmjax
from lmjax.attribution import leave_one_in, leave_one_out, occlusion
from lmjax.evaluation import Evaluator, Predictor
from lmjax.masks import segments
from lmjax.models import Classifier, checkpoints, registry
from lmjax.models.networks.resnet import BasicBlock, ResNet
from tests.support.segment_networks import linear
from tests.support.small_classifier import Preprocessing, small_classifier

RNG = np.random.default_rng(0)
H, W = 11, 8
IMAGE = RNG.random((H, W, 3)).astype(np.float32)
SEGMENTS = segments.grid(IMAGE, size=3)  # 12 segments
S = 12
REMOVALS = [lmjax.Replace("grey"), lmjax.LayerMasking()]


def predictor(removal=REMOVALS[0]):
    return Predictor(small_classifier((H, W, 3), num_classes=5), removal)


def probability(network, masks, target):
    logits = np.asarray(network(IMAGE, np.asarray(masks)), np.float64)
    return (np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True))[:, target]


# -- windows


def plain_occlusion(network, size, stride, target, overlaps):
    total, count = np.zeros((H, W)), np.zeros((H, W))
    whole = probability(network, np.ones((1, H, W)), target)[0]
    tops = [0]
    while tops[-1] + size[0] < H:
        tops.append(tops[-1] + stride[0])
    lefts = [0]
    while lefts[-1] + size[1] < W:
        lefts.append(lefts[-1] + stride[1])
    for top in tops:
        for left in lefts:
            window = np.s_[top : top + size[0], left : left + size[1]]
            mask = np.ones((1, H, W))
            mask[0][window] = 0
            total[window] += whole - probability(network, mask, target)[0]
            count[window] += 1
    assert count.min() >= 1
    return (total / count if overlaps == "mean" else total), len(tops) * len(lefts)


@pytest.mark.parametrize("removal", REMOVALS, ids=repr)
@pytest.mark.parametrize("overlaps", ["mean", "sum"])
@pytest.mark.parametrize(
    ("size", "stride"), [((3, 3), (2, 2)), ((4, 3), (4, 1)), ((2, 5), (1, 5)), ((11, 8), (1, 1))]
)
def test_occlusion_is_a_plain_loop_over_windows(removal, size, stride, overlaps):
    network = predictor(removal)
    found = occlusion(network, IMAGE, size=size, stride=stride, target=2, overlaps=overlaps)
    expected, windows = plain_occlusion(network, size, stride, 2, overlaps)
    np.testing.assert_allclose(found.scores, expected, atol=1e-6)
    assert found.num_variants == windows + 1
    assert found.segments is None
    assert found.heatmap is found.scores


def test_windows_are_squares_at_half_their_size_by_default():
    network = predictor()
    expected = occlusion(network, IMAGE, size=(5, 5), stride=(3, 3)).scores
    np.testing.assert_array_equal(occlusion(network, IMAGE, size=5).scores, expected)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 9}, "size must be .* from 1 to 11 and 8 .the image's height and width.; got 9"),
        ({"size": (3, 0)}, r"size must be .* got \(3, 0\)"),
        ({"size": 2.5}, "size must be a whole number or two"),
        ({"size": (1, 2, 3)}, "size must be a whole number or two"),
        ({"size": 3, "stride": 4}, "stride must be .* from 1 to 3 and 3 .the size"),
        ({"size": 3, "stride": 0}, "stride must be"),
        ({"size": 3, "overlaps": "max"}, "overlaps must be one of mean, sum; got 'max'"),
    ],
)
def test_bad_windows_are_errors(options, message):
    with pytest.raises(ValueError, match=message):
        occlusion(predictor(), IMAGE, **options)


# -- segments


@pytest.mark.parametrize("removal", REMOVALS, ids=repr)
def test_leaving_out_and_in_are_plain_loops_over_segments(removal):
    network = predictor(removal)
    out = leave_one_out(network, IMAGE, SEGMENTS, target=1)
    alone = leave_one_in(network, IMAGE, SEGMENTS, target=1)
    whole, nothing = probability(network, [np.ones((H, W)), np.zeros((H, W))], 1)
    for label in range(S):
        inside = (label == SEGMENTS)[None]
        expected = whole - probability(network, ~inside, 1)[0]
        np.testing.assert_allclose(out.scores[label], expected, atol=1e-6)
        expected = probability(network, inside, 1)[0] - nothing
        np.testing.assert_allclose(alone.scores[label], expected, atol=1e-6)
    np.testing.assert_allclose(alone.intercept, nothing, atol=1e-6)
    assert out.intercept is None
    assert (out.num_variants, alone.num_variants) == (S + 1, S + 2)


def test_a_network_linear_over_segments_is_recovered_exactly():
    effects = RNG.integers(-8, 9, (S, 4)).astype(np.float32)  # exact in float32
    sizes = np.bincount(SEGMENTS.ravel()).astype(np.float32)

    def network(image, masks):
        one_hot = np.eye(S, dtype=np.float32)[SEGMENTS]
        count = jnp.einsum("nhw,hws->ns", masks.astype(jnp.float32), one_hot)
        return 0.5 + jnp.matmul((count == sizes[None]).astype(jnp.float32), effects)

    for method in (leave_one_out, leave_one_in):
        found = method(network, IMAGE, SEGMENTS, target=range(4), objective="logit")
        np.testing.assert_array_equal(found.scores, effects.T)
    np.testing.assert_array_equal(found.intercept, np.full(4, 0.5))


def test_occlusion_of_a_linear_network_is_the_mean_effect_over_windows():
    effects = RNG.normal(size=(S, 2))
    found = occlusion(
        linear(SEGMENTS, effects), IMAGE, size=3, stride=3, target=1, objective="logit"
    )
    np.testing.assert_allclose(found.scores, effects[SEGMENTS, 1], atol=1e-5)


def test_one_segment_is_the_whole_image():
    network = predictor()
    whole = np.zeros((H, W), int)
    out, alone = (m(network, IMAGE, whole, target=0) for m in (leave_one_out, leave_one_in))
    assert out.scores.shape == (1,)
    np.testing.assert_allclose(out.scores, alone.scores, atol=1e-7)


def test_a_resnet_under_layer_masking():
    module = ResNet((1, 1), BasicBlock, num_classes=3, width=4)
    rng = np.random.default_rng(0)
    variables = jax.tree.map(
        lambda leaf: jnp.asarray(rng.normal(size=leaf.shape) / np.sqrt(leaf.size) + 0.1),
        checkpoints.abstract_variables(module),
    )
    variables["batch_stats"] = jax.tree.map(jnp.abs, variables["batch_stats"])
    classifier = Classifier(variables, module, registry.network("resnet18_digits").preprocessing)
    image = rng.random((24, 17, 3)).astype(np.float32)
    labels = segments.grid(image, size=9)
    network = Predictor(classifier, lmjax.LayerMasking())
    evaluator = Evaluator(network, batch_size=4)
    found = leave_one_out(evaluator, image, labels, target=0, objective="logit")
    masks = np.concatenate([np.ones((1, 24, 17)), np.stack([labels != s for s in range(6)])])
    logits = np.asarray(jax.jit(network)(image, masks.astype(bool)))[:, 0]
    np.testing.assert_allclose(found.scores, logits[0] - logits[1:], atol=1e-4 * abs(logits).max())
    assert np.ptp(found.scores) > 1e-3 * abs(logits).max()


@pytest.mark.parametrize("method", [leave_one_out, leave_one_in])
def test_bad_segments_are_errors(method):
    with pytest.raises(ValueError, match="missing 0"):
        method(predictor(), IMAGE, SEGMENTS + 1)
    with pytest.raises(ValueError, match="like the image"):
        method(predictor(), IMAGE, SEGMENTS.T)


# -- Captum


def torch_network():
    torch = pytest.importorskip("torch")
    weights = torch.tensor(np.asarray(predictor().classifier.weights))
    mean, std = (torch.tensor(each).reshape(3, 1, 1) for each in Preprocessing())

    def network(images):
        logits = torch.einsum("nchw,hwck->nk", (images - mean) / std, weights).tanh()
        return logits.softmax(dim=1)

    return network, torch.tensor(IMAGE).permute(2, 0, 1)[None], mean.expand(1, 3, H, W)


@pytest.mark.parametrize(("size", "stride"), [((3, 3), (2, 2)), ((4, 3), (3, 1)), ((5, 5), (5, 5))])
def test_occlusion_agrees_with_captum(size, stride):
    captum = pytest.importorskip("captum.attr")
    network, image, grey = torch_network()
    expected = captum.Occlusion(network).attribute(
        image, (3, *size), strides=(3, *stride), baselines=grey, target=3
    )
    found = occlusion(predictor(), IMAGE, size=size, stride=stride, target=3)
    np.testing.assert_allclose(found.scores, expected[0, 0], atol=1e-6)


def test_leave_one_out_agrees_with_captum():
    import torch

    captum = pytest.importorskip("captum.attr")
    network, image, grey = torch_network()
    expected = captum.FeatureAblation(network).attribute(
        image, baselines=grey, target=3, feature_mask=torch.tensor(SEGMENTS)[None, None].long()
    )
    found = leave_one_out(predictor(), IMAGE, SEGMENTS, target=3)
    np.testing.assert_allclose(found.heatmap, expected[0, 0], atol=1e-6)

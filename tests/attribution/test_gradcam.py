"""Class activation maps, against torch, Captum and the formulas of the papers."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lmjax
from lmjax import attribution, objectives
from lmjax.attribution.methods import attribute
from lmjax.evaluation import Evaluator
from tests.support import cam_network
from tests.support.cam_network import LAYER, torch_input
from tests.support.compilations import counted

torch = pytest.importorskip("torch")

H, W, K = 13, 10, 4
RNG = np.random.default_rng(0)
IMAGE = RNG.random((H, W, 3)).astype(np.float32)
TORCH = cam_network.torch_network(K)
CLASSIFIER = cam_network.ported(TORCH)
HALVES = CLASSIFIER.cut(LAYER)
GRADIENTS = ("gradcam", "hirescam", "gradcam_plus_plus", "layercam")
REMOVALS = {
    "layer": lmjax.LayerMasking(),
    "grey": lmjax.Replace("grey"),
    "samples": lmjax.Samples(RNG.random((5, H, W, 3)), key=jax.random.key(2), draws=3),
}


def explain(name, *, removal="layer", halves=HALVES, image=IMAGE, **options):
    """Calls a method on the small network."""
    function = getattr(attribution, name)
    if name in GRADIENTS:
        return function(*halves, image, **options)
    predictor = lmjax.Predictor(CLASSIFIER, REMOVALS[removal])
    given = {} if name == "fullgrad" else {"halves": halves}
    return function(predictor, image, **given, **options)


ALL = (*GRADIENTS, "fullgrad", "scorecam", "ablationcam")


# -- the formulas, in torch


def activations_of(network, x):
    """The layer's activations `[D, h, w]`."""
    return network.block(torch.relu(network.bn1(network.conv1(x))))[0]


def behind(network, activations):
    """Logits of activations `[N, D, h, w]`."""
    return network.fc((activations / (1 + activations)).mean(dim=(2, 3)))


def enlarged(small):
    """A map `[h, w]` as large as the image, bilinearly."""
    large = torch.nn.functional.interpolate(
        torch.as_tensor(small)[None, None], (H, W), mode="bilinear", align_corners=False
    )
    return large[0, 0].detach().numpy()


def check(scores, expected):
    """Compares maps, to the rounding of the largest score."""
    np.testing.assert_allclose(scores, expected, atol=3e-5 * abs(expected).max() + 1e-12)


def gradients_of(network, image, target, probability=False):
    """Activations and gradients `[D, h, w]`."""
    a = activations_of(network, torch_input(CLASSIFIER, image)).detach().requires_grad_()
    logits = behind(network, a[None])[0]
    many = len(logits) > 1
    shares = logits.softmax(0) if many else logits.sigmoid()
    output = (shares if probability else logits)[target]
    return a.detach(), torch.autograd.grad(output, a)[0]


def published(name, a, g):
    """The map of the layer, as the papers write it."""
    relu = torch.relu
    if name == "gradcam":
        return relu(sum(each.mean() * own for each, own in zip(g, a)))
    if name == "hirescam":
        return (g * a).sum(dim=0)
    if name == "layercam":
        return relu((relu(g) * a).sum(dim=0))
    total = torch.zeros_like(a[0])
    for own, slope in zip(a, g):
        below = 2 * slope**2 + own.sum() * slope**3
        alpha = torch.where(slope == 0, 0, slope**2 / torch.where(slope == 0, 1, below))
        total += (alpha * relu(slope)).sum() * own
    return relu(total)


@pytest.mark.parametrize("name", GRADIENTS)
@pytest.mark.parametrize(("classes", "objective"), [(K, "logit"), (1, "probability")])
def test_maps_of_gradients_are_those_of_the_papers(name, classes, objective):
    network = TORCH if classes == K else cam_network.torch_network(1, seed=5)
    halves = cam_network.ported(network).cut(LAYER)
    targets = range(classes)
    found = explain(name, halves=halves, target=targets, objective=objective)
    assert found.scores.shape == (classes, H, W)
    for target, scores in zip(targets, found.scores, strict=True):
        a, g = gradients_of(network, IMAGE, target, objective == "probability")
        expected = enlarged(published(name, a, g))
        check(scores, expected)
    assert found.scores.any(axis=(1, 2)).sum() >= (2 if classes > 1 else 1)


def test_hirescam_is_captums_gradient_times_activation():
    captum = pytest.importorskip("captum.attr")
    found = explain("hirescam", target=2)
    small = captum.LayerGradientXActivation(TORCH, TORCH.block).attribute(
        torch_input(CLASSIFIER, IMAGE), target=2
    )
    check(found.scores, enlarged(small[0].sum(dim=0)))


@pytest.mark.parametrize("classes", [K, 1])
def test_ablationcam_is_the_fall_without_each_channel(classes):
    captum = pytest.importorskip("captum.attr")
    network = TORCH if classes == K else cam_network.torch_network(1, seed=5)
    halves, target = cam_network.ported(network).cut(LAYER), 0
    found = explain("ablationcam", halves=halves, target=target)
    a = activations_of(network, torch_input(CLASSIFIER, IMAGE)).detach()
    falls = captum.LayerFeatureAblation(network, network.block).attribute(
        torch_input(CLASSIFIER, IMAGE),
        target=target,
        layer_baselines=0,
        layer_mask=torch.arange(len(a))[None, :, None, None].expand(1, *a.shape),
    )
    small = torch.relu((falls[0, :, :1, :1] * a).sum(dim=0))
    check(found.scores, enlarged(small))
    assert found.num_variants == len(a) + 1
    assert found.scores.any()


@pytest.mark.parametrize("removal", ["grey", "samples"])
def test_ablated_channels_hold_what_the_removal_shows(removal):
    found = explain("ablationcam", removal=removal, target=1)
    drawn = np.asarray(REMOVALS["samples"]._drawn(IMAGE))
    grey = np.broadcast_to(np.float32(cam_network.PREPROCESSING.mean), (1, H, W, 3))
    pictures = {"grey": grey, "samples": drawn}[removal]
    shown = [activations_of(TORCH, torch_input(CLASSIFIER, each)).detach() for each in pictures]
    a = activations_of(TORCH, torch_input(CLASSIFIER, IMAGE)).detach()
    total = torch.zeros_like(a[0])
    for channel, own in enumerate(a):
        falls = []
        for other in shown:
            ablated = a.clone()
            ablated[channel] = other[channel]
            falls.append((behind(TORCH, a[None]) - behind(TORCH, ablated[None]))[0, 1])
        total += sum(falls) / len(falls) * own
    check(found.scores, enlarged(torch.relu(total)))
    assert not np.allclose(found.scores, explain("ablationcam", target=1).scores, atol=1e-3)


def soft_masks(a):
    """The channels `[D, h, w]` as masks `[D, H, W]`."""
    large = torch.stack([torch.as_tensor(enlarged(each)) for each in a])
    low, high = (f(large, dim=(1, 2), keepdim=True) for f in (torch.amin, torch.amax))
    return ((large - low) / (high - low)).numpy()


@pytest.mark.parametrize("classes", [K, 1])
def test_scorecam_weighs_channels_by_what_they_show(classes):
    network = TORCH if classes == K else cam_network.torch_network(1, seed=5)
    classifier, target = cam_network.ported(network), classes - 1
    predictor = lmjax.Predictor(classifier, REMOVALS["grey"])
    found = attribution.scorecam(predictor, IMAGE, halves=classifier.cut(LAYER), target=target)
    x = torch_input(CLASSIFIER, IMAGE)
    a = activations_of(network, x).detach()
    a = a[[bool(each.max() > each.min()) for each in a]]
    # Times a mask, the normalised picture is that on the mean colour.
    outputs = [network(x * torch.as_tensor(m))[0, target] for m in soft_masks(a)]
    weights = torch.stack(outputs).softmax(0)
    expected = enlarged(torch.relu((weights[:, None, None] * a).sum(dim=0)))
    check(found.scores, expected)
    assert found.num_variants == len(a) + 1


@pytest.mark.parametrize("levels", [1, 3])
def test_scorecam_takes_soft_masks_as_means_of_binary_ones_under_layer_masking(levels):
    found = explain("scorecam", removal="layer", target=[0, 3], levels=levels)
    a = activations_of(TORCH, torch_input(CLASSIFIER, IMAGE)).detach()
    a = a[[bool(each.max() > each.min()) for each in a]]
    thresholds = [(i + 0.5) / levels for i in range(levels)]
    masks = [mask > threshold for mask in soft_masks(a) for threshold in thresholds]
    predictor = lmjax.Predictor(CLASSIFIER, REMOVALS["layer"])
    logits = lmjax.evaluate(predictor, IMAGE, np.stack(masks)).reshape(len(a), levels, K)
    for target, scores in zip((0, 3), found.scores):
        weights = torch.softmax(torch.tensor(logits[..., target].mean(axis=1)), 0)
        expected = enlarged(torch.relu((weights[:, None, None] * a).sum(dim=0)))
        np.testing.assert_allclose(scores, expected, atol=1e-4)
    assert found.num_variants == levels * len(a) + 1


def test_many_levels_are_the_soft_mask_of_a_linear_network():
    """Whose output for a soft mask is the mean of those for its level sets."""

    def linear(image, masks):
        shown = masks[..., None].astype(jnp.float32) * image[None]
        return jnp.stack([shown[:, :4].sum((1, 2, 3)), shown.sum((1, 2, 3))], axis=1) / 40

    def maps(image):
        return jnp.stack([image[..., 0], image[..., 1] ** 2, image.sum(-1)], axis=-1)

    options = {"halves": (maps, len), "target": 0}
    soft = attribution.scorecam(linear, IMAGE, soft=True, **options)
    near, far = (
        abs(attribution.scorecam(linear, IMAGE, levels=levels, **options).scores - soft.scores)
        for levels in (100, 1)
    )
    assert near.max() < 1e-2 * soft.scores.max() < far.max()


def test_few_evaluations_take_the_channels_that_vary_most():
    x = torch_input(CLASSIFIER, IMAGE)
    variances = activations_of(TORCH, x).detach().var(dim=(1, 2)).numpy()
    kept = np.sort(np.argsort(-variances)[:2])
    found = explain("scorecam", removal="grey", target=1, evaluations=3)
    features, head = HALVES
    few = (lambda image: features(image)[..., kept]), head
    expected = explain("scorecam", removal="grey", target=1, halves=few)
    np.testing.assert_allclose(found.scores, expected.scores, atol=1e-6)
    assert found.num_variants == 3
    assert explain("scorecam", evaluations=12, levels=4).num_variants == 9


def test_channels_that_are_constant_have_no_part():
    features, head = HALVES
    more = (lambda image: jnp.pad(features(image), ((0, 0), (0, 0), (0, 1))) + 1.0), head
    fewer = (lambda image: features(image) + 1.0), head
    one, other = (explain("scorecam", halves=each, target=2) for each in (more, fewer))
    np.testing.assert_allclose(one.scores, other.scores, atol=1e-6)
    assert one.num_variants == other.num_variants


# -- FullGrad


def test_fullgrad_is_that_of_the_paper():
    x = torch_input(CLASSIFIER, IMAGE).requires_grad_()
    norms = [each for each in TORCH.modules() if isinstance(each, torch.nn.BatchNorm2d)]
    convs = [TORCH.conv1, TORCH.block.conv]
    outputs = {}
    hooks = [
        layer.register_forward_hook(lambda layer, _, out: outputs.update({layer: out}))
        for layer in (*norms, *convs)
    ]
    logits = TORCH(x)[0]
    biases = {layer: layer.bias for layer in convs}
    for norm in norms:
        std = (norm.running_var + norm.eps).sqrt()
        biases[norm] = norm.bias - norm.running_mean * norm.weight / std
    found = explain("fullgrad", target=range(K))
    for target, scores in enumerate(found.scores):
        of_input, *slopes = torch.autograd.grad(
            logits[target], [x, *outputs.values()], retain_graph=True
        )
        products = [of_input[0] * x[0]]
        products += [g[0] * biases[each][:, None, None] for each, g in zip(outputs, slopes)]
        total = np.zeros((H, W))
        for channel in (channel for product in products for channel in product.detach().abs()):
            low, high = channel.min(), channel.max()
            total += enlarged((channel - low) / (high - low if high > low else 1))
        np.testing.assert_allclose(scores, total, rtol=1e-4, atol=1e-4)
    for hook in hooks:
        hook.remove()


def test_products_with_input_and_biases_add_up_to_the_logit_of_a_network_of_relus():
    classifier = dataclasses.replace(CLASSIFIER, module=CLASSIFIER.module.clone(bent=False))
    network, inputs = classifier.biases(), classifier.normalise(IMAGE)
    logits, biases = network(inputs)
    assert set(biases) == {"conv1", "bn1", "block/conv", "block/bn"}

    @jax.jit
    @jax.grad
    def slopes(given):
        return network(*given)[0][3]

    given = inputs, jax.tree.map(jnp.zeros_like, biases)
    products = jax.tree.map(lambda g, x: (g * x).sum(), slopes(given), (inputs, biases))
    last = classifier.variables["params"]["fc"]["bias"][3]
    np.testing.assert_allclose(sum(jax.tree.leaves(products)) + last, logits[3], rtol=1e-4)


# -- what holds for all


@pytest.mark.parametrize("name", ALL)
def test_several_targets_are_each_alone(name):
    several, alone = explain(name, target=[3, 0]), explain(name, target=0)
    assert several.target == (3, 0)
    np.testing.assert_allclose(several.scores[1], alone.scores, rtol=1e-5, atol=1e-6)
    predicted = explain(name)
    assert (
        predicted.target == predicted.predicted_class == int(HALVES[1](HALVES[0](IMAGE)).argmax())
    )
    assert predicted.scores.shape == (H, W)
    np.testing.assert_allclose(several.probability[1], alone.probability, rtol=1e-5)


@pytest.mark.parametrize("name", ALL)
def test_several_images_are_each_alone(name):
    images = np.stack([IMAGE, IMAGE[::-1] / 2])
    found = explain(name, image=images, target=[1, 2])
    for image, target, each in zip(images, (1, 2), found, strict=True):
        alone = explain(name, image=image, target=target)
        check(each.scores, alone.scores)
        assert each.num_variants == alone.num_variants


@pytest.mark.parametrize("name", ALL)
def test_functions_are_explained(name):
    function = explain(name, objective=objectives.value(2))
    np.testing.assert_allclose(function.scores, explain(name, target=2).scores, atol=1e-5)
    assert function.target is None
    assert np.isnan(function.probability)


def test_a_difference_of_logits_has_the_difference_of_maps_that_are_linear_in_the_output():
    found = explain("hirescam", objective=objectives.difference(3, 0)).scores
    apart = explain("hirescam", target=[3, 0]).scores
    check(found, apart[0] - apart[1])


@pytest.mark.parametrize("removal", ["layer", "samples"])
@pytest.mark.parametrize("name", ["scorecam", "ablationcam"])
def test_the_batch_size_changes_nothing_under_any_removal(name, removal):
    function = getattr(attribution, name)
    predictor = lmjax.Predictor(CLASSIFIER, REMOVALS[removal])
    expected = function(predictor, IMAGE, halves=HALVES, target=1)
    found = function(Evaluator(predictor, batch_size=5), IMAGE, halves=HALVES, target=1)
    np.testing.assert_allclose(found.scores, expected.scores, atol=1e-5)
    assert found.num_variants == expected.num_variants


@pytest.mark.parametrize("name", ALL)
def test_they_go_by_their_names_and_cut_behind_the_last_layer(name):
    predictor = lmjax.Predictor(CLASSIFIER, REMOVALS["grey"])
    whole = np.zeros((H, W), int)
    found = attribute(name, predictor, IMAGE, whole, key=jax.random.key(0), target=1)
    expected = explain(name, removal="grey", target=1)
    np.testing.assert_allclose(found.scores, expected.scores, atol=1e-6)
    assert found.record is not None
    assert found.record.method == name


def test_fullgrad_takes_an_evaluator():
    evaluator = Evaluator(lmjax.Predictor(CLASSIFIER, REMOVALS["layer"]), batch_size=1)
    found = attribution.fullgrad(evaluator, IMAGE, target=1)
    np.testing.assert_array_equal(found.scores, explain("fullgrad", target=1).scores)


def test_scorecam_spends_what_it_is_told_to():
    predictor = lmjax.Predictor(CLASSIFIER, REMOVALS["layer"])
    given = predictor, IMAGE, np.zeros((H, W), int)
    found = attribute("scorecam", *given, key=jax.random.key(0), num_samples=11)
    assert found.num_variants == 9  # two channels at four levels, and the whole image
    with pytest.raises(ValueError, match="num_samples must be 5 or more for scorecam with 1 "):
        attribute("scorecam", *given, key=jax.random.key(0), num_samples=3)


@pytest.mark.parametrize("name", ALL)
def test_images_compile_nothing_anew(name):
    explain(name, target=1)
    with counted() as compiled:
        explain(name, target=2, image=IMAGE[::-1] / 2)
    assert not compiled


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        *((name, {"target": 4}, "target must be from 0 to 3") for name in ALL),
        *((name, {"objective": "loss"}, "objective must be one of") for name in ALL),
        *((name, {"image": IMAGE * 255}, r"image must hold display colours in") for name in ALL),
        ("scorecam", {"levels": 0}, "levels must be a whole number from 1 to 256; got 0"),
        ("scorecam", {"evaluations": 4}, "evaluations must be a whole number, 5 or more; got 4"),
        ("scorecam", {"soft": True}, "masks hold values between 0 and 1, and the predictor's"),
        ("scorecam", {"halves": HALVES[0]}, r"halves must be two functions \(features, head\)"),
        ("ablationcam", {"halves": (HALVES[0], 3)}, r"halves must be two functions"),
        ("layercam", {"halves": (None, HALVES[1])}, "features must be a function, got NoneType"),
    ],
)
def test_bad_options_are_errors(name, options, message):
    with pytest.raises(ValueError, match=message):
        explain(name, **options)


@pytest.mark.parametrize("name", ["scorecam", "ablationcam"])
def test_features_of_another_shape_are_errors(name):
    flat = (lambda image: image.mean((0, 1))), HALVES[1]
    with pytest.raises(ValueError, match=r"features must return activations \[h, w, D\]"):
        explain(name, halves=flat)


def test_a_layer_without_places_makes_no_masks():
    constant = (lambda image: jnp.full((2, 3, 4), image.mean())), HALVES[1]
    with pytest.raises(ValueError, match="4 channels that are each constant over their 2 x 3 pos"):
        explain("scorecam", halves=constant)


@pytest.mark.parametrize("name", ALL)
def test_a_predictor_without_a_network_in_layers_is_refused(name):
    def plain(image, masks):
        return jnp.zeros((len(masks), 2))

    with pytest.raises(
        ValueError, match=r"predictor has no network (that can be cut|whose biases)"
    ):
        attribute(name, plain, IMAGE, np.zeros((H, W), int), key=jax.random.key(0))

"""Networks and fills that are not JAX, under every removal that paints, in whole batches."""

import copy
import os
import pickle
import subprocess
import sys
import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

import lmjax
from lmjax import removals
from lmjax._utils.host import suggests_black_box
from lmjax.masks import ImageCoalitions
from lmjax.models import Preprocessing
from tests.support.optional import marked

H, W, C, K = 8, 6, 3, 4
RNG = np.random.default_rng(0)
IMAGE = RNG.random((H, W, C)).astype(np.float32)
MASKS = RNG.random((13, H, W)) < 0.5
SEGMENTS = np.arange(H * W).reshape(H, W) // 12
WEIGHTS = RNG.normal(size=(H, W, C, K)).astype(np.float32) / H
TORCH = torch.nn.Linear(H * W * C, K)
PAINTING = [name for name in removals.names() if removals.paints(name)]


def in_numpy(images):
    return np.tanh(np.einsum("nhwc,hwck->nk", images, WEIGHTS))


def in_jax(images):
    return jnp.tanh(jnp.einsum("nhwc,hwck->nk", images, WEIGHTS, precision="highest"))


def in_torch(images):
    with torch.inference_mode():
        flat = torch.from_numpy(images).reshape(len(images), -1)
        return torch.tanh(TORCH(flat)).numpy()


def in_jax_as_in_torch(images):
    weights = jnp.asarray(TORCH.weight.detach().numpy()), jnp.asarray(TORCH.bias.detach().numpy())
    flat = images.reshape(len(images), -1)
    return jnp.tanh(jnp.matmul(flat, weights[0].T, precision="highest") + weights[1][None])


class Spy:
    """A function that notes what it is given."""

    def __init__(self, function):
        self.function, self.shapes, self.threads = function, [], set()

    def __call__(self, *arrays):
        assert all(type(each) is np.ndarray for each in arrays)
        self.shapes.append(tuple(each.shape for each in arrays))
        self.threads.add(threading.get_ident())
        return self.function(*arrays)


class InJax:
    """Oracle: the same network as a classifier in JAX."""

    preprocessing = Preprocessing(resize=None, crop=None)

    def __init__(self, function):
        self.function = function

    def normalise(self, images):
        return images

    def apply(self, images):
        return self.function(images)


@pytest.mark.parametrize("name", marked(PAINTING))
def test_numpy_under_every_removal_that_paints(name):
    removal = removals.make(name, key=jax.random.key(0), segments=SEGMENTS)
    predictor = lmjax.Predictor(lmjax.black_box(in_numpy), removal)
    logits = lmjax.evaluate(predictor, IMAGE, MASKS, batch_size=4)
    expected = lmjax.Predictor(InJax(in_jax), removal)(IMAGE, MASKS)
    np.testing.assert_allclose(logits, expected, atol=1e-5)


@pytest.mark.parametrize("removal", ["grey", "blur"])
def test_torch(removal):
    predictor = lmjax.Predictor(lmjax.black_box(in_torch), removal)
    expected = lmjax.Predictor(InJax(in_jax_as_in_torch), removal)(IMAGE, MASKS)
    np.testing.assert_allclose(predictor(IMAGE, MASKS), expected, atol=1e-5)
    np.testing.assert_allclose(lmjax.evaluate(predictor, IMAGE, MASKS), expected, atol=1e-5)
    jitted = jax.jit(lambda p, image, masks: p(image, masks))(predictor, IMAGE, MASKS)
    np.testing.assert_allclose(jitted, expected, atol=1e-5)


def test_several_replacements_are_averaged():
    removal = lmjax.ReplaceAverage(RNG.random((3, H, W, C)).astype(np.float32))
    predictor = lmjax.Predictor(lmjax.black_box(in_numpy), removal)
    expected = lmjax.Predictor(InJax(in_jax), removal)(IMAGE, MASKS)
    np.testing.assert_allclose(lmjax.evaluate(predictor, IMAGE, MASKS), expected, atol=1e-5)


def test_whole_batches_are_asked_about_not_variants():
    spy = Spy(in_numpy)
    predictor = lmjax.Predictor(lmjax.black_box(spy), "grey")
    lmjax.evaluate(predictor, IMAGE, MASKS, batch_size=4)
    probe, *calls = spy.shapes
    assert probe == ((1, H, W, C),)
    assert calls == [((4, H, W, C),)] * 4


def test_many_images_are_one_batch_and_so_are_mapped_axes():
    spy = Spy(in_numpy)
    predictor = lmjax.Predictor(lmjax.black_box(spy), "black")
    images = RNG.random((3, H, W, C)).astype(np.float32)
    image_of = np.arange(len(MASKS)) % 3
    evaluator = lmjax.Evaluator(predictor, batch_size=8)
    logits = evaluator.images(images, MASKS, image_of=image_of)
    expected = in_numpy(np.where(MASKS[..., None], images[image_of], 0))
    np.testing.assert_allclose(logits, expected, atol=1e-5)
    assert spy.shapes[1:] == [((8, H, W, C),)] * 2
    coalitions = ImageCoalitions(np.stack([SEGMENTS] * 3), RNG.random((5, 4)) < 0.5)
    few = evaluator.images(images, coalitions, image_of=np.zeros(5, int))
    expected = in_numpy(np.where(coalitions.keep[:, SEGMENTS][..., None], images[0], 0))
    np.testing.assert_allclose(few, expected, atol=1e-5)
    spy.shapes.clear()
    twice = jax.vmap(jax.vmap(predictor, in_axes=(None, 0)), in_axes=(0, None))(images, MASKS)
    assert twice.shape == (3, len(MASKS), K)
    assert spy.shapes == [((3 * len(MASKS), H, W, C),)]
    for image, found in zip(images, twice):
        expected = in_numpy(np.where(MASKS[..., None], image, 0))
        np.testing.assert_allclose(found, expected, atol=1e-5)


def test_the_shape_of_results_is_found_out_once():
    spy = Spy(in_numpy)
    predictor = lmjax.Predictor(lmjax.black_box(spy), "black")
    for size in (1, 2, 4):
        lmjax.evaluate(predictor, IMAGE, MASKS, batch_size=size)
    assert spy.shapes.count(((1, H, W, C),)) == 1 + len(MASKS)  # the probe, and batches of one


def test_equal_boxes_share_their_programs():
    traces = []

    @jax.jit
    def run(predictor):
        traces.append(1)
        return predictor(IMAGE, MASKS)

    for _ in range(2):
        run(lmjax.Predictor(lmjax.black_box(in_numpy), "grey"))
    run(lmjax.Predictor(lmjax.black_box(in_torch), "grey"))
    assert len(traces) == 2


def test_the_function_may_keep_and_change_its_batch():
    kept = []

    def greedy(images):
        kept.append(images)
        logits = in_numpy(images)
        images[:] = -1
        return logits

    predictor = lmjax.Predictor(lmjax.black_box(greedy), "black")
    expected = in_numpy(np.where(MASKS[..., None], IMAGE, 0))
    for _ in range(2):
        np.testing.assert_allclose(lmjax.evaluate(predictor, IMAGE, MASKS), expected, atol=1e-5)
    assert all((each == -1).all() for each in kept)


def test_explained_like_any_other():
    box = lmjax.Predictor(lmjax.black_box(in_numpy), "grey")
    plain = lmjax.Predictor(InJax(in_jax), "grey")
    key, options = jax.random.key(0), {"num_samples": 40, "target": 1}
    found, expected = (
        lmjax.attribution.lime(each, IMAGE, SEGMENTS, key=key, **options)
        for each in (box, lambda image, masks: plain(image, masks))
    )
    np.testing.assert_allclose(found.scores, expected.scores, atol=1e-4)


# -- fills


def test_a_fill_is_given_whole_batches():
    def mean_of_visible(images, masks, keys):
        visible = masks[..., None]
        mean = images.sum(axis=(1, 2), keepdims=True) / visible.sum(axis=(1, 2), keepdims=True)
        draws = [np.random.default_rng(key).uniform(0, 0.1) for key in keys]
        return mean + np.array(draws)[:, None, None, None] + 0 * images

    spy, key = Spy(mean_of_visible), jax.random.key(5)
    painted = np.asarray(lmjax.Fill(lmjax.black_box(spy), key=key).paint(IMAGE, MASKS))
    n = len(MASKS)
    assert spy.shapes[1:] == [((n, H, W, C), (n, H, W), (n, 2))]
    draw = np.random.default_rng(np.asarray(jax.random.key_data(key))).uniform(0, 0.1)
    for picture, mask in zip(painted, MASKS):
        np.testing.assert_array_equal(picture[mask], IMAGE[mask])
        expected = np.broadcast_to(IMAGE[mask].mean(axis=0) + draw, picture[~mask].shape)
        np.testing.assert_allclose(picture[~mask], expected, atol=1e-5)
    without = lmjax.Fill(lmjax.black_box(lambda images, masks: images + 0.5))
    np.testing.assert_array_equal(np.asarray(without.paint(IMAGE, MASKS))[~MASKS], 0.5)


def test_a_baseline_of_ones_own_is_a_black_box_too():
    box = lmjax.black_box(lambda images: images[:, ::-1])
    for run in (lambda r: r.paint(IMAGE, MASKS), jax.jit(lambda r: r.paint(IMAGE, MASKS))):
        painted = np.asarray(run(lmjax.Replace(box)))
        np.testing.assert_allclose(painted, np.where(MASKS[..., None], IMAGE, IMAGE[::-1]))


def test_fill_and_network_both_black():
    fill = lmjax.Fill(lmjax.black_box(lambda images, masks: images + 0.5))
    predictor = lmjax.Predictor(lmjax.black_box(in_numpy), fill)
    expected = in_numpy(np.where(MASKS[..., None], IMAGE, 0.5).astype(np.float32))
    np.testing.assert_allclose(lmjax.evaluate(predictor, IMAGE, MASKS), expected, atol=1e-5)


# -- errors


@pytest.mark.parametrize("removal", [None, "layer", "no_padding@1", "partial", "token_dropping"])
def test_removals_inside_the_network_are_an_error(removal):
    predictor = lmjax.Predictor(lmjax.black_box(in_numpy), removal)
    assert predictor.engines == ("dense",)
    with pytest.raises(ValueError, match=r"must be one that paints.*BlackBox\(in_numpy\)"):
        lmjax.evaluate(predictor, IMAGE, MASKS)


def test_gradients_say_that_there_are_none():
    predictor = lmjax.Predictor(lmjax.black_box(in_numpy), "grey")
    with pytest.raises(ValueError, match=r"gradients do not pass through lmjax\.black_box"):
        jax.grad(lambda image: predictor(image, MASKS).sum())(jnp.asarray(IMAGE))


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda images: images[:, 0, 0], None),
        (lambda images: images, r"must return logits \[N, K\], got \[1, 8, 6, 3\]"),
        (lambda images: images.mean(), r"a row for each of its 1 inputs, got shape \(\)"),
        (lambda images: np.zeros((3, 2)), r"a row for each of its 1 inputs, got shape \(3, 2\)"),
    ],
)
def test_results_of_another_shape_are_errors(function, message):
    predictor = lmjax.Predictor(lmjax.black_box(function), "grey")
    if message is None:
        assert predictor(IMAGE, MASKS).shape == (len(MASKS), 3)
    else:
        with pytest.raises(ValueError, match=message):
            predictor(IMAGE, MASKS)


def test_an_interrupt_stays_one():
    def interrupted(images):
        if images.min() < 0.5:  # not where the shape of results is found out
            raise KeyboardInterrupt
        return in_numpy(images)

    predictor = lmjax.Predictor(lmjax.black_box(interrupted), "black")
    with pytest.raises(KeyboardInterrupt):
        lmjax.evaluate(predictor, IMAGE, MASKS)


def test_not_a_function():
    with pytest.raises(ValueError, match="function must be callable, got ndarray"):
        lmjax.black_box(IMAGE)


@pytest.mark.parametrize(
    "function",
    [
        in_torch,
        lambda images: np.asarray(images),
        lambda images: images.permute(0, 3, 1, 2),
        lambda images: torch.as_tensor(images),
        lambda images: torch.nn.functional.relu(images),
        lambda images: [float(each) for each in images.sum(axis=(1, 2, 3))],
    ],
)
def test_what_jax_cannot_trace_names_the_way_out(function):
    def traced(images):
        with suggests_black_box("predictor"):
            return function(images)

    with pytest.raises(ValueError, match=r"predictor is not .*JAX can trace.*lmjax\.black_box"):
        jax.jit(traced)(IMAGE[None])


@pytest.mark.parametrize("error", [TypeError, AttributeError, RuntimeError, ValueError, KeyError])
def test_other_errors_pass(error):
    with pytest.raises(error, match="something else"), suggests_black_box("predictor"):
        raise error("something else")


def test_a_leaked_tracer_is_another_mistake():
    leaked = []
    jax.jit(lambda x: leaked.append(x) or x)(1.0)
    with pytest.raises(jax.errors.UnexpectedTracerError), suggests_black_box("predictor"):
        jax.jit(lambda x: x + leaked[0])(1.0)


def test_it_is_static_and_says_what_it_is():
    names = ("a", "b", "c", "d")
    preprocessing = Preprocessing(resize=40, crop=32, mean=(0.1, 0.2, 0.3))
    box = lmjax.black_box(in_numpy, preprocessing=preprocessing, class_names=list(names))
    assert jax.tree.leaves(box) == []
    assert (box.class_names, box.preprocessing) == (names, preprocessing)
    assert repr(box) == "BlackBox(in_numpy)"
    grey = np.asarray(lmjax.Predictor(box, "grey")(IMAGE, np.zeros((1, H, W), bool)))
    expected = in_numpy(np.broadcast_to(np.float32([0.1, 0.2, 0.3]), (1, H, W, C)))
    np.testing.assert_allclose(grey, expected, atol=1e-6)


# -- callbacks that wait for a thread of the pool that calls them never return


ON_ONE_CORE = """
import os
os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:{cores}])
import numpy as np, torch, lmjax, jax
from jax.sharding import Mesh
torch.manual_seed(0)
model = torch.nn.Sequential(
    torch.nn.Conv2d(3, 8, 7, 4), torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(1),
    torch.nn.Flatten(), torch.nn.Linear(8, 5),
).eval()
def in_torch(images):
    with torch.inference_mode():
        return model(torch.from_numpy(images).permute(0, 3, 1, 2)).numpy()
weights = np.random.default_rng(0).normal(size=(3, 5)).astype(np.float32)
def in_numpy(images):
    return images.mean(axis=(1, 2)) @ weights
rng = np.random.default_rng(1)
image, masks = rng.random((224, 224, 3)).astype(np.float32), rng.random((96, 224, 224)) < 0.5
mesh = Mesh(jax.devices(), "x")
for network in (in_numpy, in_torch):
    predictor = lmjax.Predictor(lmjax.black_box(network), "black")
    for size in (4, 32):
        logits = lmjax.evaluate(predictor, image, masks, batch_size=size, mesh=mesh)
        expected = network(np.where(masks[..., None], image, 0).astype(np.float32))
        np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-5)
print("done", len(jax.devices()))
"""


@pytest.mark.parametrize(("cores", "devices"), [(1, 1), (2, 2)])
def test_no_deadlock_with_as_many_programs_as_cores(cores, devices):
    flags = f"--xla_force_host_platform_device_count={devices}"
    environment = {**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    code = ON_ONE_CORE.format(cores=cores)
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, timeout=300, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["done", str(devices)]


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))])
def test_copies_answer_alike(copied):
    box = lmjax.black_box(in_numpy)
    expected = lmjax.evaluate(lmjax.Predictor(box, "grey"), IMAGE, MASKS)
    found = lmjax.evaluate(lmjax.Predictor(copied(box), "grey"), IMAGE, MASKS)
    np.testing.assert_array_equal(found, expected)


def test_it_runs_without_compilation():
    predictor = lmjax.Predictor(lmjax.black_box(in_numpy), "grey")
    expected = lmjax.evaluate(predictor, IMAGE, MASKS)
    with jax.disable_jit():
        found = lmjax.evaluate(predictor, IMAGE, MASKS)
    np.testing.assert_allclose(found, expected, atol=1e-5)

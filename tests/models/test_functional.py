"""Networks of other frameworks as classifiers: weights, engines, masks, training, errors."""

import copy
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

import lmjax
from lmjax.data import DigitScenes
from lmjax.models import Preprocessing, checkpoints
from lmjax.training import TrainingConfig, train
from tests.support.compilations import quick_jit
from tests.support.foreign_networks import CLASSES, NETWORKS, drawn, keras_function, zeros
from tests.support.masked_functions import double_precision

SIZE = 32
IMAGE = np.random.default_rng(0).random((SIZE, SIZE, 3)).astype(np.float32)
SEGMENTS = lmjax.segments.grid(IMAGE, size=8)


class Linen(nn.Module):
    """A network in Flax Linen, with batch norm."""

    @nn.compact
    def __call__(self, x, train: bool):
        x = nn.Conv(16, (3, 3), (2, 2), name="stem")(x)
        x = nn.relu(nn.BatchNorm(use_running_average=not train, name="norm")(x))
        x = x + nn.relu(nn.Conv(16, (3, 3), name="block")(x))
        return nn.Dense(CLASSES, name="head")(x.mean((1, 2)))


def linen():
    network = Linen()
    blank = np.zeros((1, SIZE, SIZE, 3), np.float32)
    variables = zeros(lambda x: network.init(jax.random.key(0), x, False), blank)
    return lambda variables, images: network.apply(variables, images, False), drawn(variables)


def haiku():
    import haiku as hk

    def forward(images, is_training):
        x = hk.Conv2D(16, 3, 2, name="stem")(images)
        x = jax.nn.relu(hk.BatchNorm(True, True, 0.9, name="norm")(x, is_training))
        x = x + jax.nn.relu(hk.Conv2D(16, 3, name="block")(x))
        return hk.Linear(CLASSES, name="head")(x.mean((1, 2)))

    network = hk.transform_with_state(forward)
    blank = np.zeros((1, SIZE, SIZE, 3), np.float32)
    params = zeros(lambda x: network.init(jax.random.key(0), x, True), blank)
    return lambda params, images: network.apply(*params, None, images, False)[0], drawn(params)


def keras():
    import keras

    layers = keras.layers
    shape = SIZE, SIZE, 3
    image = keras.Input(shape)
    x = layers.Conv2D(16, 3, 2, "same", name="stem")(image)
    x = layers.ReLU()(layers.BatchNormalization(name="norm")(x))
    x = layers.add([x, layers.Conv2D(16, 3, padding="same", activation="relu", name="block")(x)])
    logits = layers.Dense(CLASSES, name="head")(layers.GlobalAveragePooling2D()(x))
    return keras_function(keras.Model(image, logits))


@pytest.fixture(autouse=True, scope="module")
def _as_others_write():
    """Other people's networks let NumPy's rules add axes."""
    with jax.numpy_rank_promotion("allow"):
        yield


FRAMEWORKS = {
    "Linen": linen,
    "NNX": lambda: NETWORKS["residual, squeeze-and-excitation"].make(SIZE),
    "Haiku": haiku,
    "Equinox": lambda: NETWORKS["grouped, dilated, batch norm"].make(SIZE),
    "Keras": keras,
}
STATISTICS = {
    "Linen": {"batch_stats.norm.mean", "batch_stats.norm.var"},
    "NNX": {f"block{i}.norm1.{name}" for i in (1, 2) for name in ("mean", "var")},
    "Haiku": {
        f"1.norm/~/{which}_ema.{name}"
        for which in ("mean", "var")
        for name in ("average", "hidden")
    },
    "Equinox": {"1.1.0", "1.1.1"},
    "Keras": {"norm/moving_mean", "norm/moving_variance"},
}


def layout_of(framework):
    return "NCHW" if framework == "Equinox" else "NHWC"


def in_layout(framework, images):
    return images.transpose(0, 3, 1, 2) if layout_of(framework) == "NCHW" else images


def classifier_of(framework, **options):
    apply, params = FRAMEWORKS[framework]()
    return lmjax.models.from_function(
        apply, params, layout=layout_of(framework), image_size=SIZE, **options
    )


@pytest.fixture(scope="module")
def classifiers():
    return {framework: classifier_of(framework) for framework in FRAMEWORKS}


@pytest.fixture(scope="module")
def small(classifiers):
    return classifiers["Linen"]


@pytest.fixture(params=FRAMEWORKS)
def each(request, classifiers):
    return request.param, classifiers[request.param]


def close(found, expected):
    bound = 1e-5 * float(np.abs(expected).max())
    np.testing.assert_allclose(found, expected, rtol=0, atol=bound)


def test_plain_logits_are_those_of_the_function(each):
    framework, classifier = each
    apply, params = FRAMEWORKS[framework]()
    images = np.asarray(classifier.normalise(IMAGE))[None]
    expected = quick_jit(apply)(params, in_layout(framework, images))
    close(classifier.apply(images), expected)
    assert classifier.module.num_classes == CLASSES


def test_engines_agree_and_nothing_hidden_is_read(each):
    _, classifier = each
    masks = np.random.default_rng(1).random((6, 16)) < 0.5
    masks[0] = True
    coalitions = lmjax.Coalitions(SEGMENTS, masks)
    predictor = lmjax.Predictor(classifier, lmjax.LayerMasking())
    dense = lmjax.evaluate(predictor, IMAGE, coalitions, engine="dense")
    for engine in ("visible", "shared"):
        close(lmjax.evaluate(predictor, IMAGE, coalitions, engine=engine), dense)
    images = np.asarray(classifier.normalise(IMAGE))[None]
    close(dense[0], classifier.apply(images)[0])
    right = np.arange(SIZE)[None, :] >= np.ones((SIZE, 1)) * SIZE // 2
    poisoned = np.where(right[..., None], IMAGE, np.nan)
    found, expected = (
        lmjax.evaluate(predictor, x, right[None], engine="dense") for x in (poisoned, IMAGE)
    )
    np.testing.assert_array_equal(found, expected)
    assert np.isfinite(found).all()


def test_statistics_are_told_from_weights(each):
    framework, classifier = each
    stats, params = classifier.variables["batch_stats"], classifier.variables["params"]
    floating = {name for name, leaf in stats.items() if jnp.issubdtype(leaf.dtype, jnp.floating)}
    assert floating == STATISTICS[framework]
    assert len(params) >= 8
    assert all(leaf.dtype == jnp.float32 for leaf in params.values())


def test_what_stays_fixed_can_be_said():
    classifier = classifier_of("Linen", fixed=lambda name: "head" not in name)
    assert set(classifier.variables["params"]) == {"params.head.kernel", "params.head.bias"}


def test_random_keys_of_dropout_are_no_weights():
    from flax import nnx

    class Net(nnx.Module):
        def __init__(self, rngs):
            self.conv = nnx.Conv(3, 8, (3, 3), rngs=rngs)
            self.dropout = nnx.Dropout(0.5, deterministic=True, rngs=rngs)
            self.head = nnx.Linear(8, 4, rngs=rngs)

        def __call__(self, x):
            return self.head(self.dropout(self.conv(x)).mean((1, 2)))

    graph, state = nnx.split(Net(nnx.Rngs(0)))
    classifier = lmjax.models.from_function(
        lambda state, images: nnx.merge(graph, state)(images), state, image_size=SIZE
    )
    assert set(classifier.variables["params"]) == {
        *("conv.kernel", "conv.bias", "head.kernel", "head.bias"),
    }
    checkpoints.weights_sha256(classifier.variables)


@pytest.mark.parametrize("as_array", [np.asarray, jnp.asarray], ids=["numpy", "jax"])
def test_closed_over_weights_are_arguments(as_array):
    rng = np.random.default_rng(0)
    kernel = as_array(rng.normal(size=(5, 5, 3, 32)).astype(np.float32))
    head = as_array(rng.normal(size=(32, 4)).astype(np.float32))  # few enough for a constant

    def apply(params, images):
        with jax.named_scope("stem"):
            x = jax.lax.conv_general_dilated(
                images, kernel, (2, 2), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
            )
        with jax.named_scope("after"):
            return jnp.tanh(x).mean((1, 2)) @ head + params["bias"]

    classifier = lmjax.models.from_function(
        apply, {"bias": jnp.arange(4.0)}, image_size=SIZE, preprocessing=None
    )
    assert set(classifier.variables["params"]) == {"bias"}
    (name,) = classifier.variables["batch_stats"]
    images = np.asarray(classifier.normalise(IMAGE))[None]
    masks = np.ones((1, SIZE, SIZE), bool)
    run = jax.jit(lambda classifier, masks: classifier.apply(images, masks))
    lowered = run.lower(classifier, masks).as_text()
    assert "tensor<5x5x3x32xf32>" in lowered
    constants = [line for line in lowered.splitlines() if "stablehlo.constant" in line]
    assert not any("5x5x3x32" in line for line in constants)
    close(run(classifier, masks), apply({"bias": jnp.arange(4.0)}, images))
    doubled = {**classifier.variables, "batch_stats": {name: 2 * kernel}}
    other = run(
        lmjax.models.Classifier(doubled, classifier.module, classifier.preprocessing), masks
    )
    assert np.abs(other - run(classifier, masks)).max() > 0.01
    masked = classifier.apply(images, masks, masking=lmjax.LayerMasking(depth="after"))
    close(masked, run(classifier, masks))


def test_everything_takes_such_a_classifier(small, tmp_path):
    predictor = lmjax.Predictor(small)
    key = jax.random.key(0)
    lime = lmjax.attribution.lime(predictor, IMAGE, SEGMENTS, key=key, num_samples=160)
    assert np.isfinite(lime.heatmap).all()
    assert np.ptp(lime.heatmap) > 0
    curve = lmjax.metrics.deletion(predictor, IMAGE, lime.heatmap, segments=SEGMENTS)
    assert np.isfinite(curve.normalised_auc)
    removals = "layer", "grey", "layer@block"
    study = lmjax.studies.SegmentRemoval(
        removals=removals, orders=("random",), fractions=(0.5,), grid_size=8
    )
    scenes = DigitScenes("test", length=3)
    rows = lmjax.studies.run(study, scenes, models={"own": small}, output=tmp_path, progress=False)
    assert set(rows.column("removal").to_pylist()) == set(removals)


@pytest.mark.parametrize("masking", [lmjax.LayerMasking(), lmjax.LayerMasking(padding="none")])
def test_masks_up_to_a_module(small, masking):
    """From a module on the network is plain: what comes before is masked, what follows is not."""
    masks = SEGMENTS[None] % np.array([3, 1])[:, None, None] == 0  # blocks; everything
    images = np.repeat(np.asarray(small.normalise(IMAGE))[None], 2, axis=0)
    whole = small.apply(images, masks, masking=masking)
    depth = lmjax.LayerMasking(padding=masking.padding, depth="block")
    part = small.apply(images, masks, masking=depth)
    close(part[1], whole[1])
    assert np.abs(part[0] - whole[0]).max() > 1e-3
    predictor = lmjax.Predictor(small, depth)
    for engine in ("visible", "shared"):
        close(
            lmjax.evaluate(predictor, IMAGE, masks, engine=engine),
            lmjax.evaluate(predictor, IMAGE, masks, engine="dense"),
        )


def test_other_paddings_are_those_of_a_network_in_masked_layers(small):
    """The same network, written in lmjax's layers."""
    from lmjax.masking import Masked, layers

    v = {**small.variables["params"], **small.variables["batch_stats"]}

    def written(images, masks, fill):
        x = layers.mask_input(Masked(images, masks))
        kernel, bias = v["params.stem.kernel"], v["params.stem.bias"]
        same = ((0, 1), (0, 1))
        x = layers.conv(x, kernel, bias=bias, stride=2, padding=same, fill=fill)
        scale = v["params.norm.scale"] / jnp.sqrt(v["batch_stats.norm.var"] + 1e-5)
        shift = v["params.norm.bias"] - v["batch_stats.norm.mean"] * scale
        x = layers.pointwise(x, lambda x: jax.nn.relu(x * scale + shift))
        kernel, bias = v["params.block.kernel"], v["params.block.bias"]
        y = layers.conv(x, kernel, bias=bias, padding=1, fill=fill)
        x = layers.residual(x, layers.pointwise(y, jax.nn.relu))
        return layers.global_average_pool(x) @ v["params.head.kernel"] + v["params.head.bias"]

    masks = jnp.asarray(np.random.default_rng(3).random((2, SIZE, SIZE)) < 0.3)
    images = jnp.repeat(small.normalise(IMAGE)[None], 2, axis=0)
    maskings = {
        "neighbor": lmjax.LayerMasking(),
        "none": lmjax.LayerMasking(padding="none"),
        "partial": lmjax.PartialConvolution(),
    }
    logits = {}
    for fill, masking in maskings.items():
        logits[fill] = small.apply(images, masks, masking=masking)
        close(logits[fill], written(images, masks, fill))
    assert np.abs(logits["none"] - logits["partial"]).max() > 1e-3


@pytest.mark.parametrize("framework", ["Linen", "Equinox"])
def test_training_changes_weights_and_no_statistics(framework, classifiers, tmp_path):
    classifier = classifiers[framework]
    config = TrainingConfig(
        epochs=1,
        images_per_epoch=16,
        batch_size=8,
        optimizer="adamw",
        learning_rate=0.01,
        ema=0.9,
        augmentations=("patches:layer",),
    )
    source = DigitScenes("train", length=16)
    path = train(classifier, source, config=config, output=tmp_path, progress=False)
    trained = classifier.with_weights(path)
    state = checkpoints.read_state_dict(path)
    for kind in ("params", "batch_stats"):
        assert trained.variables[kind].keys() == classifier.variables[kind].keys()
        for name, value in trained.variables[kind].items():
            np.testing.assert_array_equal(value, state[name], err_msg=name)
            same = np.array_equal(value, classifier.variables[kind][name])
            assert same == (kind == "batch_stats"), name
            assert value.dtype == classifier.variables[kind][name].dtype
    with pytest.raises(ValueError, match=r"does not fit the network: .*missing.*stem"):
        classifiers["Keras"].with_weights(path)


def test_names_that_contain_those_of_statistics_are_weights():
    params = {"removing_rain": {"w": jnp.ones((3, 4))}, "norm/moving_mean": jnp.zeros(4)}
    classifier = lmjax.models.from_function(
        lambda p, x: x.mean((1, 2)) @ p["removing_rain"]["w"] - p["norm/moving_mean"], params
    )
    assert {*classifier.variables["params"]} == {"removing_rain.w"}
    assert {*classifier.variables["batch_stats"]} == {"norm/moving_mean"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mean": 0.5}, "mean must be a number for each channel, got 0.5"),
        ({"std": 0.5}, "std must be a number for each channel"),
        ({"image_size": (32, 48)}, "image_size must be a whole number, 1 or more .*square"),
    ],
)
def test_options_of_functions_are_checked(options, message):
    params = {"w": jnp.ones((3, 4))}
    with pytest.raises(ValueError, match=message):
        lmjax.models.from_function(lambda p, x: x.mean((1, 2)) @ p["w"], params, **options)


@pytest.mark.parametrize("side", [3, 16, 64, 256])  # JAX takes memory that is aligned as it is
def test_the_callers_arrays_may_change_afterwards(side):
    params = {"kernel": np.ones((3, side), np.float32)}
    classifier = lmjax.models.from_function(
        lambda p, x: x.mean((1, 2)) @ p["kernel"], params, image_size=8
    )
    params["kernel"] *= 0
    np.testing.assert_array_equal(classifier.variables["params"]["kernel"], np.ones((3, side)))


def test_a_function_keeps_names_of_leaves_in_files(tmp_path):
    params = {"kernel": jnp.ones((3, 4)), "weight": jnp.ones((4, 3)), "scale": jnp.ones(4)}
    classifier = lmjax.models.from_function(
        lambda p, x: (x.mean((1, 2)) @ p["kernel"] * p["scale"]) @ p["weight"],
        params,
        image_size=8,
    )
    path = tmp_path / "weights.safetensors"
    checkpoints.save_safetensors(path, checkpoints.to_state_dict(classifier.variables))
    assert set(checkpoints.read_state_dict(path)) == set(params)
    assert classifier.with_weights(path).variables["params"].keys() == params.keys()


def test_repr_is_short(each):
    _, classifier = each
    assert f"{CLASSES} classes" in repr(classifier)
    assert len(repr(classifier)) < 300
    assert len(repr(classifier.module)) < 300


def test_functions_differ_by_what_they_compute(small):
    again = classifier_of("Linen").module
    assert again.fingerprint == small.module.fingerprint
    assert again != small.module  # functions are equal only to themselves
    assert classifier_of("Haiku").module.fingerprint != small.module.fingerprint


def test_networks_of_one_size_say_so():
    weights = {"w": jnp.ones((SIZE * SIZE * 3, 4))}
    classifier = lmjax.models.from_function(
        lambda p, x: x.reshape(len(x), -1) @ p["w"], weights, image_size=SIZE
    )
    assert classifier.module.image_size == SIZE
    with pytest.raises(ValueError, match=r"images must be 32 x 32 pixels.*got 16 x 16.*image_size"):
        classifier.apply(jnp.zeros((1, 16, 16, 3)), jnp.ones((1, 16, 16), bool))


def test_other_networks_take_any_size(small):
    assert small.module.image_size is None
    assert small.apply(jnp.zeros((1, 48, 40, 3)), jnp.ones((1, 48, 40), bool)).shape == (1, CLASSES)


def mean(params, images):
    return images.mean((1, 2)) @ params["w"]


WEIGHTS = {"w": jnp.ones((3, 4))}


@pytest.mark.parametrize(
    ("apply", "options", "message"),
    [
        (
            lambda p, x: x[..., :1],
            {},
            r"must return logits \[N, K\], got \[2, 32, 32, 1\] for images \[2, 32, 32, 3\]",
        ),
        (lambda p, x: {"logits": mean(p, x)}, {}, r"got \{'logits': \[2, 4\]\}.*\['logits'\]"),
        (lambda p, x: mean(p, x)[0], {}, r"must return logits \[N, K\], got \[4\]"),
        (lambda x, p: mean(p, x), {}, "must take .params, images..*order of its arguments"),
        (mean, {"layout": "NCHW"}, r"images of shape \[2, 3, 32, 32\].*`layout`"),
        (mean, {"layout": "CHW"}, "layout must be 'NHWC' or 'NCHW', got 'CHW'"),
        (mean, {"class_names": ["a", "b"]}, "class_names has 2 names, and apply gives 4 logits"),
        (mean, {"mean": (0.5,), "std": (0.5,)}, r"images of shape \[2, 32, 32, 1\]"),
        (
            lambda p, x: mean(p, x) if x.sum() > 0 else -mean(p, x),
            {},
            "it raised TracerBoolConversionError",
        ),
    ],
    ids=[
        *("no logits", "dict", "no batch", "order", "layout", "unknown layout", "class names"),
        *("channels", "control flow"),
    ],
)
def test_functions_that_do_not_fit_are_refused(apply, options, message):
    with pytest.raises(ValueError, match=message):
        lmjax.models.from_function(apply, WEIGHTS, **{"image_size": SIZE, **options})


def test_other_mistakes_are_named(small, tmp_path):
    with pytest.raises(ValueError, match=r"apply must be a function .params, images."):
        lmjax.models.from_function({"w": 1}, mean)  # pyright: ignore
    masks = np.ones((1, SIZE, SIZE), bool)
    images = jnp.zeros((1, SIZE, SIZE, 3))
    with pytest.raises(ValueError, match=r"depth is 2, a number of blocks.*name of the module"):
        small.apply(images, masks, masking=lmjax.LayerMasking(depth=2))
    with pytest.raises(ValueError, match=r"until must be.*'layer9'.*it has .*stem.*block"):
        small.apply(images, masks, masking=lmjax.LayerMasking(depth="layer9"))
    with pytest.raises(ValueError, match=r"layer must be a module of the network.*it has .*stem"):
        small.cut("layer9")
    with pytest.raises(ValueError, match=r"masks"):
        small.apply(images, masks[:, :16])
    with pytest.raises(ValueError, match=r"layer masking|LayerMasking"):
        lmjax.Predictor(small, lmjax.TokenDropping())(IMAGE, masks)


@pytest.mark.parametrize(
    ("classifier", "config", "message"),
    [
        ("Linen", {"dtype": "bfloat16"}, "dtype must be float32 for a network that is a function"),
        ("closed over", {}, "no weights to train.*closes over"),
        ("no crop", {}, "preprocessing must have a crop"),
        ("few classes", {}, r"the classifier has 4 classes, and the source \(or num_classes\) 10"),
    ],
)
def test_what_cannot_be_trained_is_named(classifier, config, message, classifiers, tmp_path):
    apply, params = FRAMEWORKS["Linen"]()
    make = lmjax.models.from_function
    networks = {
        "Linen": classifiers["Linen"],
        "closed over": make(lambda _, x: apply(params, x), {}, image_size=SIZE),
        "no crop": make(apply, params, preprocessing=Preprocessing(None, None)),
        "few classes": make(mean, WEIGHTS, image_size=SIZE),
    }
    settings = TrainingConfig(epochs=1, images_per_epoch=8, batch_size=8, **config)
    source = DigitScenes("train", length=8)
    with pytest.raises(ValueError, match=message):
        train(networks[classifier], source, config=settings, output=tmp_path, progress=False)


def test_gradients_are_zero_under_the_mask(small):
    masks = np.zeros((1, SIZE, SIZE), bool)
    masks[:, 4:20, 3:15] = True
    images = small.normalise(IMAGE)[None]
    gradient = quick_jit(jax.grad(lambda x: (small.apply(x, masks) ** 2).sum()))(images)
    assert np.isfinite(gradient).all()
    assert not np.asarray(gradient)[~masks].any()
    assert np.asarray(gradient)[masks].any()


def scaled_mean(params, images):
    return jnp.matmul(images.mean(axis=(1, 2)), params["head"]) * params["scale"]


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))])
def test_copies_answer_alike(copied):
    params = {"head": np.eye(3, 5, dtype=np.float32), "scale": 2.0}
    predictor = lmjax.Predictor(lmjax.models.from_function(scaled_mean, params, image_size=SIZE))
    masks = np.arange(SIZE)[None, :, None] < np.full((2, 1, SIZE), SIZE // 2)
    expected = lmjax.evaluate(predictor, IMAGE, masks)
    copy_of = copied(predictor)  # of a network that has been traced
    np.testing.assert_array_equal(lmjax.evaluate(copy_of, IMAGE, masks), expected)
    plain = lmjax.evaluate(lmjax.Predictor(copy_of.classifier, "grey"), IMAGE, masks)
    assert np.isfinite(plain).all()


def convolved(params, images):
    """A network whose operations take arrays of one type only."""
    axes = ("NHWC", "HWIO", "NHWC")
    y = jax.lax.conv_general_dilated(images, params["stem"], (1, 1), "SAME", dimension_numbers=axes)
    return jnp.matmul(jax.nn.relu(y).mean((1, 2)), params["head"])


@pytest.mark.parametrize("dtype", [np.float64, np.float16])
def test_images_of_other_types_become_those_that_it_was_traced_for(dtype):
    rng = np.random.default_rng(0)
    params = {"stem": rng.normal(size=(3, 3, 3, 8)), "head": rng.normal(size=(8, CLASSES))}
    params = jax.tree.map(lambda x: x.astype(np.float32), params)
    images = IMAGE[None].astype(np.float16)  # equal in all types
    masks = np.ones((1, SIZE, SIZE))
    masks[:, :9] = 0
    with double_precision():
        classifier = lmjax.models.from_function(convolved, params, image_size=SIZE)
        layer, grey = (lmjax.Predictor(classifier, name) for name in ("layer", "grey"))
        features, head = classifier.cut()

        def answers(images):
            yield classifier.logits(images, masks)
            yield layer(jnp.asarray(images[0]), jnp.asarray(masks))
            yield lmjax.Evaluator(layer).images(images, masks, image_of=[0])
            yield lmjax.Evaluator(grey).images(images, 0.5 * masks, image_of=[0])
            yield lmjax.evaluate(grey, images[0], 0.5 * masks)
            yield head(features(jnp.asarray(images[0])))

        for found, expected in zip(
            answers(images.astype(dtype)), answers(images.astype(np.float32)), strict=True
        ):
            assert found.dtype == np.float32
            close(found, expected)

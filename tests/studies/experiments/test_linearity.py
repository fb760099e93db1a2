"""The study of linearity, and features below the last layer."""

import dataclasses

import jax
import numpy as np
import pyarrow as pa
import pytest
from flax import linen as nn
from scipy.spatial import distance

import lmjax
from lmjax import studies
from lmjax.masking.masked import Masked
from lmjax.models import Preprocessing
from lmjax.models.classifier import Classifier
from lmjax.models.layers import Conv, relu
from lmjax.removals import Samples
from lmjax.studies.experiments.linearity import FeatureLinearity, linearity, random_patches
from lmjax.studies.images import ImageBatch
from lmjax.studies.predictors import KeyedImage, Penultimate, under_removal
from lmjax.studies.samples import read_sample
from tests.studies import fakes, linear_network

SMALL = FeatureLinearity(removals=("layer", "grey", "black"), sizes=(4, 8))
SAMPLES = [read_sample(fakes.Source(9), i) for i in (2, 5, 7)]


def batch(network, samples=SAMPLES):
    return ImageBatch(samples, {"a": network}, key=jax.random.key(0))


@pytest.fixture(scope="module")
def of_sums():
    return SMALL.rows(batch(linear_network.network()))


def test_features_are_what_the_last_layer_takes():
    network = linear_network.network(average=True)
    masks = np.random.default_rng(0).random((4, fakes.SIZE, fakes.SIZE)) < 0.5
    shown, image_of = batch(network), np.array([0, 2, 1, 1])
    layer = {name: np.asarray(x) for name, x in network.variables["params"]["fc"].items()}
    for removal in ("layer", "black"):
        features = shown.features("a", removal, masks, image_of)
        np.testing.assert_allclose(
            features @ layer["kernel"] + layer["bias"],
            shown.logits("a", removal, masks, image_of),
            atol=1e-5,
        )
    assert shown.evaluations == 4 * len(masks)
    shuffled = shown.images("a")[[1, 2, 0]]
    others = shown.features("a", "layer", masks, np.array([2, 1, 0, 0]), images=shuffled)
    np.testing.assert_array_equal(others, shown.features("a", "layer", masks, image_of))


class EndsInConvolution(nn.Module):
    masking: lmjax.LayerMasking = lmjax.LayerMasking()

    @nn.compact
    def __call__(self, inputs):
        x = Conv(10, 1, name="classifier")(lmjax.masking.layers.mask_input(inputs))
        return lmjax.masking.layers.global_average_pool(relu(x))


def test_features_below_a_convolution_are_averaged_over_what_is_visible():
    module = EndsInConvolution()
    images = np.zeros((1, fakes.SIZE, fakes.SIZE, 3), np.float32)
    network = Classifier(module.init(jax.random.key(0), Masked(images)), module, fakes.AS_IT_IS)
    mask = np.zeros((1, fakes.SIZE, fakes.SIZE), bool)
    mask[0, 3:9, 20:] = True
    shown = batch(network)
    features = shown.features("a", "layer", mask, np.array([1]))
    colours = network.normalise(shown.images("a")[1])[mask[0]]
    np.testing.assert_allclose(features, colours.mean(axis=0)[None], rtol=1e-5)


def test_features_are_averaged_over_draws_as_they_are():
    module = EndsInConvolution()
    images = np.zeros((1, fakes.SIZE, fakes.SIZE, 3), np.float32)
    network = Classifier(module.init(jax.random.key(0), Masked(images)), module, fakes.AS_IT_IS)
    image = np.random.default_rng(0).random(images.shape[1:]).astype(np.float32)
    masks = np.zeros((1, fakes.SIZE, fakes.SIZE), bool)
    masks[0, 3:9, 20:] = True
    key = jax.random.key(0)
    predictor = under_removal(Penultimate(network), "samples")
    features = predictor(KeyedImage(image, key, None), masks)
    drawn = Samples(key=key)._drawn(image)  # features are means of colours: linear in the fill
    filled = np.where(masks[0, :, :, None], image, drawn.mean(axis=0))
    expected = network.normalise(filled).mean(axis=(0, 1))
    np.testing.assert_allclose(features[0], expected, rtol=1e-4)


def test_networks_without_a_last_layer_are_errors():
    with pytest.raises(
        ValueError, match=r"last layer is a Flax Dense .*; SmallClassifier has neither"
    ):
        Penultimate(fakes.network()).apply(np.zeros((1, fakes.SIZE, fakes.SIZE, 3)))


def test_sums_are_linear(of_sums):
    assert len(of_sums) == 3 * 3 * 2
    for row in of_sums:
        if row["removal"] == "black":  # every patch alone brings the black rest along
            assert row["distance"] > 1
        else:
            assert row["cosine"] == pytest.approx(1, abs=1e-6)
            assert row["distance"] == pytest.approx(0, abs=1e-5)
            assert row["mean_distance"] == pytest.approx(3 / 4, abs=1e-5)
        assert row["effect_cosine"] == pytest.approx(1, abs=1e-6)
        assert row["effect_distance"] == pytest.approx(0, abs=1e-5)


def test_means_are_the_mean_of_means():
    study = FeatureLinearity(removals=("layer",), sizes=(8,), patches=3)
    for row in study.rows(batch(linear_network.network(average=True))):
        assert row["cosine"] == pytest.approx(1, abs=1e-6)
        assert row["distance"] == pytest.approx(2, abs=1e-5)
        assert row["mean_distance"] == pytest.approx(0, abs=1e-5)


def test_rows_are_those_of_a_plain_loop():
    network = linear_network.network(average=True)
    shown = batch(network)
    rows = SMALL.rows(shown)
    chosen = [r for r in rows if (r["image"], r["removal"], r["size"]) == (5, "black", 4)]
    (row,) = chosen
    patches = random_patches((fakes.SIZE, fakes.SIZE), 4, 4, shown.keys)[1]
    picture = SAMPLES[1].image / 255

    def features(mask):
        x = (np.where(mask[..., None], picture, 0) - 0.5) / 0.5
        cells = [
            x[i : i + 8, j : j + 8].sum(axis=(0, 1)) / x[..., 0].size
            for i in range(0, fakes.SIZE, 8)
            for j in range(0, fakes.SIZE, 8)
        ]
        return np.concatenate(cells)

    alone = [features(patch) for patch in patches]
    together, nothing = features(sum(patches) > 0), features(np.zeros_like(patches[0]))
    expected = {
        "cosine": 1 - distance.cosine(sum(alone), together),
        "distance": distance.euclidean(sum(alone), together) / np.linalg.norm(together),
        "mean_distance": distance.euclidean(sum(alone) / 4, together) / np.linalg.norm(together),
        "effect_cosine": 1 - distance.cosine(sum(alone) - 4 * nothing, together - nothing),
        "norm": np.mean([np.linalg.norm(each) for each in alone]),
        "norm_together": np.linalg.norm(together),
    }
    for name, value in expected.items():
        assert row[name] == pytest.approx(value, abs=1e-4), name


def test_no_features_have_no_direction():
    found = linearity(np.ones((4, 3)), np.zeros(3), np.zeros(3))
    assert np.isnan([found["cosine"], found["distance"], found["effect_distance"]]).all()


def test_patches_are_different_whole_cells():
    keys = jax.random.split(jax.random.key(1), 40)
    patches = random_patches((21, 34), 8, 4, keys)
    assert patches.shape == (40, 4, 21, 34)
    assert (patches.sum(axis=(2, 3)) == 64).all()
    assert patches.sum(axis=1).max() == 1
    seen = patches.any(axis=(0, 1))
    assert seen[:16, :32].all()
    assert seen.sum() == 16 * 32
    again = random_patches((21, 34), 8, 4, keys[7:8])
    np.testing.assert_array_equal(again[0], patches[7])


def test_rows_do_not_depend_on_the_block(of_sums):
    alone = SMALL.rows(batch(linear_network.network(), SAMPLES[1:2]))
    together = [row for row in of_sums if row["image"] == 5]
    for one, other in zip(alone, together, strict=True):
        for name in linearity(np.ones((2, 2)), np.ones(2), np.zeros(2)):
            assert one.pop(name) == pytest.approx(other[name], rel=1e-5, abs=1e-5)
        assert one.items() <= other.items()


def test_removals_are_compared_image_by_image():
    rows = [
        {"image": i, "network": "a", "removal": removal, "size": 8}
        | dict.fromkeys(linearity(np.ones((2, 2)), np.ones(2), np.zeros(2)), i + gain)
        for removal, gain in (("layer", 0.0), ("grey", 0.25))
        for i in range(4)
    ]
    rows[2]["distance"] = float("nan")  # of layer masking: 0, 1 and 3 are known
    tables = FeatureLinearity().tables(pa.Table.from_pylist(rows))
    (difference,) = tables["differences"]
    assert (difference["removal"], difference["against"]) == ("grey", "layer")
    for name in ("cosine", "cosine_low", "cosine_high", "distance", "distance_low"):
        assert difference[name] == pytest.approx(0.25)  # on the images that both know
    assert tables["means"][0]["cosine"] == pytest.approx(1.5)
    assert tables["means"][0]["distance"] == pytest.approx((0 + 1 + 3) / 3)  # of those known
    ((name, figure),) = FeatureLinearity().figures(tables).items()
    assert name == "a"
    assert len(figure.axes) == 5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sizes": ()}, "sizes must be .* 1 or more"),
        ({"sizes": (8, 4)}, "sizes must be .* 1 or more"),
        ({"sizes": (0,)}, "sizes must be .* 1 or more"),
        ({"patches": 1}, "patches must be a whole number, 2 or more"),
        ({"removals": ("layers",)}, "removals must be"),
    ],
    ids=str,
)
def test_settings_out_of_range_are_errors(options, message):
    with pytest.raises(ValueError, match=message):
        FeatureLinearity(**options)


def test_too_few_patches_are_refused_before_a_run_starts(tmp_path):
    network = dataclasses.replace(
        fakes.network(), preprocessing=Preprocessing(resize=32, crop=32, mean=(0.5,) * 3)
    )
    study, out = FeatureLinearity(sizes=(8, 16), patches=5), tmp_path / "run"
    with pytest.raises(ValueError, match=r"32 x 32 have 4 patches of 16 x 16 .*patches=5; give"):
        studies.run(study, fakes.Source(1), models={"a": network}, output=out)
    assert not out.exists()
    with pytest.raises(ValueError, match="patches must be a whole number from 2 to 10000; got"):
        FeatureLinearity(patches=10**9)


def test_too_few_patches_are_an_error():
    with pytest.raises(ValueError, match="32 x 32 have 1 patches of 32 x 32"):
        FeatureLinearity(sizes=(32,)).rows(batch(linear_network.network()))

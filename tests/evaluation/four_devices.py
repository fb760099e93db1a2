"""What `test_batches.py` runs in a process with four devices. Not collected by itself."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import lmjax
from lmjax._utils import sharding
from lmjax.masks import Coalitions, ImageCoalitions, segments
from tests.evaluation.test_engines import IMAGE, random_masks, random_predictor
from tests.support.small_classifier import small_classifier

MASKS = random_masks(100)
NETWORK = random_predictor("basic", lmjax.LayerMasking())  # for what its layers have a part in
PREDICTOR = lmjax.Predictor(small_classifier(IMAGE.shape), "grey")


def mesh_of(count, *, axis_type=AxisType.Auto):
    some = jax.devices()[:count]
    return jax.make_mesh((count,), ("batch",), axis_types=(axis_type,), devices=some)


ONE = mesh_of(1)


def test_there_are_four():
    assert len(jax.devices()) == 4
    assert sharding.local_mesh().size == 4


@pytest.mark.parametrize("engine", ["dense", "visible", "shared"])
def test_all_devices_answer_as_one(engine):
    """100 variants are 13 batches of 8: three of the devices have one less."""
    options = {"engine": engine, "batch_size": 8}
    alone = lmjax.evaluate(NETWORK, IMAGE, MASKS, mesh=ONE, **options)
    together = lmjax.evaluate(NETWORK, IMAGE, MASKS, **options)
    if engine == "dense":
        np.testing.assert_array_equal(together, alone)
    else:  # packed into other batches
        np.testing.assert_allclose(together, alone, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("count", [1, 3, 4, 5, 33])
def test_few_variants(count):
    alone = lmjax.evaluate(PREDICTOR, IMAGE, MASKS[:count], mesh=ONE)
    together = lmjax.evaluate(PREDICTOR, IMAGE, MASKS[:count])
    np.testing.assert_allclose(together, alone, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("axis_type", list(AxisType)[:2], ids=str)
def test_meshes_of_any_axes(axis_type):
    mesh = jax.make_mesh((2, 2), ("hosts", "chips"), axis_types=(axis_type,) * 2)
    found = lmjax.evaluate(PREDICTOR, IMAGE, MASKS, batch_size=8, mesh=mesh)
    expected = lmjax.evaluate(PREDICTOR, IMAGE, MASKS, batch_size=8, mesh=ONE)
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("engine", ["dense", "shared"])
def test_networks_that_were_traced_for_one_mesh_run_on_another(engine):
    """`jax.make_mesh` makes axes that would be part of the types of what is traced."""
    params = {"kernel": jnp.ones((3, 3, 3, 2)) / 27, "head": jnp.ones((2, 4))}
    classifier = lmjax.models.from_function(apply, params, image_size=IMAGE.shape[0])
    predictor = lmjax.Predictor(classifier, lmjax.LayerMasking())
    expected = lmjax.evaluate(predictor, IMAGE, MASKS, engine=engine, mesh=ONE)
    meshes = [jax.make_mesh((4,), ("x",)), mesh_of(3), jax.make_mesh((1, 4), ("x", "y")), None]
    for mesh in meshes:
        found = lmjax.evaluate(predictor, IMAGE, MASKS, engine=engine, mesh=mesh)
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def apply(params, images):
    axes = ("NHWC", "HWIO", "NHWC")
    x = jax.lax.conv_general_dilated(
        images, params["kernel"], (1, 1), "SAME", dimension_numbers=axes
    )
    return jnp.matmul(jax.nn.relu(x).mean((1, 2)), params["head"])


@pytest.mark.parametrize("axis_type", list(AxisType)[:2], ids=str)
def test_a_mesh_that_the_caller_has_set_changes_nothing(axis_type):
    segments_of = segments.grid(IMAGE, size=11)
    options = {"key": jax.random.key(0), "num_samples": 160}
    expected = lmjax.attribution.lime(PREDICTOR, IMAGE, segments_of, **options).scores
    with jax.set_mesh(mesh_of(4, axis_type=axis_type)):
        found = lmjax.attribution.lime(PREDICTOR, IMAGE, segments_of, **options).scores
        gradient = lmjax.attribution.gradient(PREDICTOR, IMAGE).scores
        alone = lmjax.Evaluator(PREDICTOR, mesh=ONE)
        other = lmjax.attribution.lime(alone, IMAGE, segments_of, **options).scores
    np.testing.assert_allclose(other, expected, atol=1e-5)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert np.isfinite(gradient).all()


def solves(image, mask, key):
    matrix = 2 * jnp.eye(64) + mask.mean()
    return jnp.clip(image * jax.scipy.linalg.solve(matrix, jnp.ones(64), assume_a="pos")[0], 0, 1)


def test_what_calls_lapack_runs_on_one_device_where_it_would_hang_on_all():
    image, masks = IMAGE[:12, :10], MASKS[:, :12, :10]
    classifier = small_classifier(image.shape)
    predictor = lmjax.Predictor(classifier, lmjax.Fill(solves))
    with pytest.warns(UserWarning, match="the predictor calls LAPACK"):
        found = lmjax.evaluate(predictor, image, masks, batch_size=8)
    alone = lmjax.evaluate(predictor, image, masks, batch_size=8, mesh=ONE)
    np.testing.assert_array_equal(found, alone)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        lmjax.evaluate(lmjax.Predictor(classifier, "harmonic"), image, masks)  # on all of them


def test_every_device_computes_its_share():
    at_work = []

    def network(image, masks):
        jax.debug.callback(lambda device: at_work.append(int(device)), jax.lax.axis_index("batch"))
        return masks.mean(axis=(1, 2))[:, None]

    lmjax.evaluate(network, IMAGE, MASKS, batch_size=8, mesh=mesh_of(4))
    jax.effects_barrier()
    assert sorted(at_work) == [0] * 4 + [1] * 3 + [2] * 3 + [3] * 3


def test_weights_that_are_on_all_devices_stay_there():
    mesh = mesh_of(4)
    everywhere = jax.device_put(PREDICTOR, NamedSharding(mesh, PartitionSpec()))
    leaves = jax.tree.leaves(everywhere)
    copied = sharding.replicated(leaves, mesh)
    for before, after in zip(leaves, copied, strict=True):
        assert [x.data.unsafe_buffer_pointer() for x in before.addressable_shards] == [
            x.data.unsafe_buffer_pointer() for x in after.addressable_shards
        ]


def test_the_default_device_is_heeded():
    chosen = jax.devices()[2]
    with jax.default_device(chosen):
        assert list(sharding.local_mesh().devices.flat) == [chosen]
        on_it = lmjax.evaluate(PREDICTOR, IMAGE, MASKS[:8])
    np.testing.assert_array_equal(on_it, lmjax.evaluate(PREDICTOR, IMAGE, MASKS[:8], mesh=ONE))


def test_variants_of_many_images():
    rng = np.random.default_rng(0)
    images = rng.random((5, *IMAGE.shape)).astype(np.float32)
    maps = np.stack([segments.grid(IMAGE, size=11)] * 5)
    family = ImageCoalitions(maps, rng.random((61, maps.max() + 1)) < 0.5)
    image_of = rng.integers(0, 5, 61)
    options = {"batch_size": 4, "engine": "dense"}
    together = lmjax.Evaluator(PREDICTOR, **options)
    alone = lmjax.Evaluator(PREDICTOR, mesh=ONE, **options)
    together = together.images(images, family, image_of=image_of)
    alone = alone.images(images, family, image_of=image_of)
    np.testing.assert_array_equal(together, alone)


def test_attributions_and_metrics():
    four, one = (lmjax.Evaluator(PREDICTOR, batch_size=8, mesh=mesh) for mesh in (None, ONE))
    options = {"key": jax.random.key(0), "num_samples": 63}
    together = lmjax.attribution.rise(four, IMAGE, **options)
    alone = lmjax.attribution.rise(one, IMAGE, **options)
    np.testing.assert_allclose(together.scores, alone.scores, rtol=1e-5)
    together = lmjax.metrics.deletion(four, IMAGE, alone.heatmap, step=64)
    expected = lmjax.metrics.deletion(one, IMAGE, alone.heatmap, step=64)
    np.testing.assert_allclose(together.values, expected.values, rtol=1e-5)


def test_keep_of_coalitions_are_divided():
    grid = segments.grid(IMAGE, size=11)
    keep = np.random.default_rng(0).random((37, grid.max() + 1)) < 0.5
    coalitions = Coalitions(grid, keep)
    together = lmjax.evaluate(PREDICTOR, IMAGE, coalitions, batch_size=4)
    alone = lmjax.evaluate(PREDICTOR, IMAGE, keep[:, grid], batch_size=4, mesh=ONE)
    np.testing.assert_array_equal(together, alone)

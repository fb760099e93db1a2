"""lmjax's own networks as plain functions: masked by tracing as they are by hand."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lmjax
from lmjax.evaluation import jobs, programs
from lmjax.masking import Masked, layers
from lmjax.masking.sparse import rows
from lmjax.masking.transform import layer_mask
from lmjax.models import Classifier, checkpoints, registry
from tests.evaluation.test_engines import IMAGE, MODULES, random_masks, random_predictor
from tests.support.compilations import quick_jit
from tests.support.masked_functions import distance, hidden_as, images_of, masks_of
from tests.support.networks import NAMES, SMALLEST
from tests.support.own_networks import by_hand, calibrated, plain, rings_of, size_of

# Compiled by hand for half a minute: its classifier is wide, its cells are many.
_SLOW = ("vgg11",)
QUICK = [name for name in SMALLEST if name not in _SLOW]


def drawn(module, seed=0):
    """Random weights that keep activations of one size, batch statistics included."""
    rng = np.random.default_rng(seed)

    def draw(path, leaf):
        kind = path[-1].key
        if kind in ("scale", "var"):
            return jnp.asarray(rng.uniform(0.5, 1.5, leaf.shape), leaf.dtype)
        if leaf.ndim < 2:
            return jnp.asarray(rng.normal(scale=0.2, size=leaf.shape), leaf.dtype)
        scale = np.sqrt(1.5 / (leaf.size / leaf.shape[-1]))
        return jnp.asarray(rng.standard_normal(leaf.shape, np.float32) * scale, leaf.dtype)

    return jax.tree_util.tree_map_with_path(draw, checkpoints.abstract_variables(module))


def compare(module, variables, size, **options):
    """Logits by hand and by tracing, and the error over the largest logit."""
    masks = masks_of((size, size))
    images = jnp.asarray(hidden_as(np.nan, images_of(masks), masks), jnp.float32)
    expected = quick_jit(by_hand(module))(variables, images, masks)
    actual = quick_jit(layer_mask(plain(module), **options))(variables, images, masks)
    assert np.isfinite(actual).all()
    return actual, expected


def rings_by_tracing(module, variables, size, **options):
    images = jnp.zeros((1, size, size, 3))
    return rings_of(layer_mask(plain(module), **options), variables, images, images[..., 0] == 0)


def rings_by_hand(module, variables, size):
    images = jnp.zeros((1, size, size, 3))
    return rings_of(by_hand(module), variables, images, images[..., 0] == 0)


@pytest.mark.parametrize("name", QUICK)
def test_smallest_of_each_family(name):
    module, size = registry.network(name).build(), size_of(name)
    variables = drawn(module)
    actual, expected = compare(module, variables, size)
    assert np.ptp(expected, axis=0).max() > 1e-2 * np.abs(expected).max()
    assert distance(actual, expected) < 1e-5
    assert rings_by_tracing(module, variables, size) <= rings_by_hand(module, variables, size)


def moved_by_rounding(module, variables, size):
    """How much the answer by hand moves when images are scaled by 1 + 2e-7."""
    masks = masks_of((size, size))
    images = jnp.asarray(images_of(masks), jnp.float32)
    one, other = (
        quick_jit(by_hand(module))(variables, x, masks) for x in (images, images * (1 + 2e-7))
    )
    return distance(one, other)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_every_network(name):
    module, size = registry.network(name).build(), size_of(name)
    variables = calibrated(module, size)
    actual, expected = compare(module, variables, size)
    error = distance(actual, expected)
    found, hand, full = (
        rings_by_tracing(module, variables, size),
        rings_by_hand(module, variables, size),
        rings_by_tracing(module, variables, size, shortcuts=False),
    )
    print(f"| {name} | {error:.1e} | {found} | {hand} | {full} |")
    assert error < 1e-5 or error < 3 * moved_by_rounding(module, variables, size)
    assert found <= hand


# Variants, on small networks.

NAMES_OF_BLOCKS = {
    "basic": ("layer1.0", "layer2.0"),
    "bottleneck": ("layer1.0", "layer2.0"),
}


def small(kind, masking):
    predictor = random_predictor(kind, masking)
    module = predictor.classifier.module.clone(masking=masking)
    return module, predictor.classifier.variables


@pytest.mark.parametrize("kind", MODULES)
def test_small_networks(kind):
    module, variables = small(kind, lmjax.LayerMasking())
    assert distance(*compare(module, variables, 40)) < 1e-5


@pytest.mark.parametrize(
    ("padding", "masking"),
    [("none", lmjax.LayerMasking(padding="none")), ("partial", lmjax.PartialConvolution())],
    ids=["none", "partial"],
)
@pytest.mark.parametrize("kind", ["basic", "bottleneck", "grouped", "concatenated"])
def test_without_neighbor_padding(kind, padding, masking):
    module, variables = small(kind, masking)
    assert distance(*compare(module, variables, 40, padding=padding)) < 1e-5


@pytest.mark.parametrize("kind", NAMES_OF_BLOCKS)
@pytest.mark.parametrize("depth", [0, 1])
def test_until_a_block(kind, depth):
    until = NAMES_OF_BLOCKS[kind][depth]
    module, variables = small(kind, lmjax.LayerMasking(depth=depth))
    actual, expected = compare(module, variables, 40, until=until)
    whole, _ = compare(module, variables, 40)
    assert distance(actual, expected) < 1e-5
    assert distance(whole, expected) > 1e-3


# Rows.


@functools.cache
def masked(module):
    return layer_mask(plain(module))


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class Traced(Classifier):
    """A classifier whose network is masked by tracing."""

    def _run(self, inputs, masking):
        if isinstance(inputs, Masked) and inputs.mask is None:
            return super()._run(inputs, masking)
        return masked(self.module).run(self.variables, layers.mask_input(inputs))


def traced(predictor):
    fields = {f.name: getattr(predictor.classifier, f.name) for f in dataclasses.fields(Traced)}
    return dataclasses.replace(predictor, classifier=Traced(**fields))


@pytest.mark.parametrize("engine", ["visible", "shared"])
@pytest.mark.parametrize("kind", MODULES)
def test_on_rows(kind, engine):
    predictor, masks = random_predictor(kind, lmjax.LayerMasking()), random_masks(21)
    expected = lmjax.evaluate(predictor, IMAGE, masks, batch_size=2, engine="dense")
    actual = lmjax.evaluate(traced(predictor), IMAGE, masks, batch_size=2, engine=engine)
    np.testing.assert_allclose(actual, expected, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize("kind", MODULES)
def test_rows_of_as_many_sets_of_positions_as_by_hand(kind):
    predictor, masks = random_predictor(kind, lmjax.LayerMasking()), random_masks(4)

    def sets(predictor):
        job = jobs.job_of_image(predictor, IMAGE, masks, jobs.Options(batch_size=2))
        return len(programs.record(job, 1, None).sets)

    # Traced from lmjax's own layers a max pool is two, rows first.
    assert sets(traced(predictor)) <= sets(predictor) + 1


def test_visible_rows_through_run():
    module, variables = small("bottleneck", lmjax.LayerMasking())
    masks = masks_of((40, 40))
    images = jnp.asarray(images_of(masks), jnp.float32)
    masked = layer_mask(plain(module))
    actual = rows.run(
        lambda pixels: masked.run(variables, layers.mask_input(pixels)),
        images,
        jnp.asarray(masks),
        jit=quick_jit,
    )
    assert distance(actual, quick_jit(masked)(variables, images, masks)) < 1e-5


def test_classifiers_of_other_types_share_no_programs():
    """A subclass with its parent's fields has a structure that JAX takes for equal."""
    predictor, masks = random_predictor("squeezed", lmjax.LayerMasking()), random_masks(21)
    options = {"batch_size": 2, "engine": "shared"}
    expected = lmjax.evaluate(predictor, IMAGE, masks, batch_size=2, engine="dense")
    for each in (traced(predictor), predictor):
        actual = lmjax.evaluate(each, IMAGE, masks, **options)
        np.testing.assert_allclose(actual, expected, atol=1e-5 * np.abs(expected).max())

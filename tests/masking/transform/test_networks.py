"""lmjax's own networks as plain functions: masked by tracing as they are by hand.

One network of each family: models/test_networks.py.
"""

import dataclasses
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lmjax
from lmjax.evaluation import jobs, programs
from lmjax.masking import Masked, layers
from lmjax.masking.transform import layer_mask
from lmjax.models import Classifier, registry
from tests.evaluation.test_engines import IMAGE, MODULES, random_masks, random_predictor
from tests.support.compilations import quick_jit
from tests.support.masked_functions import distance, hidden_as, images_of, masks_of
from tests.support.networks import NAMES
from tests.support.on_rows import run
from tests.support.own_networks import by_hand, calibrated, counted_rings, plain, rings_of, size_of


class Compared(NamedTuple):
    """Logits by tracing and by hand, and the rings of neighbor padding that each computes."""

    actual: np.ndarray
    expected: np.ndarray
    rings: int
    rings_by_hand: int

    @property
    def error(self):
        return distance(self.actual, self.expected)


def compare(module, variables, size, **options):
    """Runs a network masked by tracing, and as it is written."""
    masks = masks_of((size, size))
    images = jnp.asarray(hidden_as(np.nan, images_of(masks), masks), jnp.float32)
    with counted_rings() as of_hand:
        expected = quick_jit(by_hand(module))(variables, images, masks)
    with counted_rings() as of_tracing:
        actual = quick_jit(layer_mask(plain(module), **options))(variables, images, masks)
    assert np.isfinite(actual).all()
    return Compared(np.asarray(actual), np.asarray(expected), sum(of_tracing), sum(of_hand))


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
    found, images = compare(module, variables, size), jnp.zeros((1, size, size, 3))
    slow = layer_mask(plain(module), shortcuts=False)
    full = rings_of(slow, variables, images, images[..., 0] == 0)
    print(f"| {name} | {found.error:.1e} | {found.rings} | {found.rings_by_hand} | {full} |")
    assert found.error < 1e-5 or found.error < 3 * moved_by_rounding(module, variables, size)
    assert found.rings <= found.rings_by_hand


# Variants, on small networks.


def small(kind, masking):
    predictor = random_predictor(kind, masking)
    module = predictor.classifier.module.clone(masking=masking)
    return module, predictor.classifier.variables


@pytest.mark.parametrize("kind", MODULES)
def test_small_networks(kind):
    module, variables = small(kind, lmjax.LayerMasking())
    assert compare(module, variables, 40).error < 1e-5


@pytest.mark.parametrize(
    ("padding", "masking"),
    [("none", lmjax.LayerMasking(padding="none")), ("partial", lmjax.PartialConvolution())],
    ids=["none", "partial"],
)
@pytest.mark.parametrize("kind", ["grouped", "concatenated"])
def test_without_neighbor_padding(kind, padding, masking):
    module, variables = small(kind, masking)
    assert compare(module, variables, 40, padding=padding).error < 1e-5


@pytest.mark.parametrize(("depth", "until"), [(0, "layer1.0"), (1, "layer2.0")])
def test_until_a_block(depth, until):
    module, variables = small("bottleneck", lmjax.LayerMasking(depth=depth))
    found = compare(module, variables, 40, until=until)
    assert found.error < 1e-5
    masks = masks_of((40, 40))
    images = jnp.asarray(images_of(masks), jnp.float32)
    whole = quick_jit(layer_mask(plain(module)))(variables, images, masks)
    assert distance(whole, found.expected) > 1e-3


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


@pytest.mark.parametrize("kind", MODULES)
def test_on_rows(kind):
    predictor, masks = random_predictor(kind, lmjax.LayerMasking()), random_masks(21)
    expected = lmjax.evaluate(predictor, IMAGE, masks, batch_size=2, engine="dense")
    # What each layer does with rows is the same for rows that are shared.
    shared = ["shared"] if kind in ("bottleneck", "any windows", "squeezed") else []
    for engine in ("visible", *shared):
        actual = lmjax.evaluate(traced(predictor), IMAGE, masks, batch_size=2, engine=engine)
        np.testing.assert_allclose(actual, expected, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize("kind", MODULES)
def test_rows_of_as_many_sets_of_positions_as_by_hand(kind):
    predictor, masks = random_predictor(kind, lmjax.LayerMasking()), random_masks(4)

    def sets(predictor):
        job = jobs.job_of_image(predictor, IMAGE, masks, jobs.Options(batch_size=2))
        return len(programs.record(job).sets)

    # Traced from lmjax's own layers a max pool is two, rows first.
    assert sets(traced(predictor)) <= sets(predictor) + 1


def test_visible_rows_through_run():
    module, variables = small("bottleneck", lmjax.LayerMasking())
    masks = masks_of((40, 40))
    images = jnp.asarray(images_of(masks), jnp.float32)
    masked = layer_mask(plain(module))
    actual = run(
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

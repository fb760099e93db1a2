"""Attribution methods by name: each runs, and spends about as many variants as it is told to."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lmjax import attribution
from lmjax.attribution.methods import METHODS, attribute, check_methods, check_samples, pairs

SIZE = 32
IMAGE = np.full((SIZE, SIZE, 3), 0.5, np.float32)
SEGMENTS = np.arange(SIZE)[:, None] // 8 * 4 + np.arange(SIZE)[None] // 8  # 16 squares
KEY = jax.random.key(0)
PLAIN = [name for name in METHODS if name != "gradcam"]  # which needs a network in layers
BATCHED = [n for n in PLAIN if "batch_size" in inspect.signature(METHODS[n].run).parameters]
SAMPLING = [name for name in METHODS if METHODS[name].spend is not None]


def reads_one_segment(image, masks):
    """Two logits, which the colours of segment 5 decide."""
    painted = masks[..., None] * image[None]
    seen = painted[:, 8:16, 8:16].mean(axis=(1, 2, 3)) / 0.5
    return jnp.stack([2 * seen, -2 * seen], axis=-1)


@pytest.mark.parametrize("name", PLAIN)
@pytest.mark.filterwarnings("ignore:.*fewer than 10 a segment:UserWarning")
def test_every_method_points_at_the_segment_that_is_read(name):
    samples = None if METHODS[name].spend is None else 500
    found = attribute(name, reads_one_segment, IMAGE, SEGMENTS, key=KEY, target=0, samples=samples)
    assert found.heatmap.shape == (SIZE, SIZE)
    inside = found.heatmap[SEGMENTS == 5].mean()
    assert inside == max(found.heatmap[s == SEGMENTS].mean() for s in range(16))


@pytest.mark.parametrize("name", BATCHED)
@pytest.mark.filterwarnings("ignore:.*fewer than 10 a segment:UserWarning")
def test_the_batch_size_changes_nothing(name):
    samples = None if METHODS[name].spend is None else 100
    few, many = (
        attribute(
            name,
            reads_one_segment,
            IMAGE,
            SEGMENTS,
            key=KEY,
            target=0,
            samples=samples,
            batch_size=batch_size,
        )
        for batch_size in (5, 64)
    )
    np.testing.assert_allclose(few.heatmap, many.heatmap, atol=1e-5 * abs(many.heatmap).max())


@pytest.mark.parametrize("name", SAMPLING)
@pytest.mark.parametrize("samples", [200, 700])
def test_methods_spend_what_they_are_told_to(name, samples):
    found = attribute(name, reads_one_segment, IMAGE, SEGMENTS, key=KEY, target=0, samples=samples)
    # Sobol takes a power of two of designs, of which those that coincide are evaluated once.
    assert (0 if name == "sobol" else 0.8 * samples) < found.num_variants <= samples + 1


@pytest.mark.parametrize("name", SAMPLING)
@pytest.mark.filterwarnings("ignore:.*fewer than 10 a segment:UserWarning")
def test_the_fewest_samples_are_enough_and_fewer_are_refused(name):
    with pytest.raises(ValueError, match=f"samples must be .* or more for {name} with 16") as error:
        check_samples([name], 1, 16)
    fewest = int(str(error.value).split()[3])
    with pytest.raises(ValueError, match=f"or more for {name} with 16 segments, got {fewest - 1}"):
        check_samples([name], fewest - 1, 16)
    check_samples([name], fewest, 16)
    attribute(name, reads_one_segment, IMAGE, SEGMENTS, key=KEY, target=0, samples=fewest)


def test_samples_mean_nothing_to_methods_that_have_none():
    check_samples(["occlusion"], None, 16)
    check_samples(["occlusion", "lime"], 100, 16)
    with pytest.raises(ValueError, match=r"samples means nothing to occlusion.*lime, kernelshap"):
        check_samples(["occlusion"], 100, 16)


def test_no_number_of_samples_is_the_default_of_the_method():
    found = attribute("lime", reads_one_segment, IMAGE, SEGMENTS, key=KEY)
    expected = attribution.lime(reads_one_segment, IMAGE, SEGMENTS, key=KEY)
    np.testing.assert_array_equal(found.scores, expected.scores)
    assert found.num_variants == 1000


def test_names():
    assert check_methods(["rise", "lime", "rise"]) == ("rise", "lime")
    with pytest.raises(ValueError, match="got none"):
        check_methods([])
    assert pairs(["lime", "rise"], ["layer", "black"]) == [
        ("lime", "layer"),
        ("lime", "black"),
        ("rise", "layer"),
        ("rise", "black"),
    ]


def test_every_method_of_the_library_has_a_name():
    """But exact_shapley, which is for tests: KernelSHAP is exact on as few segments."""
    functions = {
        function
        for function in map(attribution.__dict__.get, attribution.__all__)
        if inspect.isfunction(function)
        and inspect.signature(function).return_annotation is attribution.Attribution
    }
    named = {METHODS[name].run for name in PLAIN} | {attribution.gradcam}
    assert functions - {attribution.exact_shapley} == named

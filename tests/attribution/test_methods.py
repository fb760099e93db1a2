"""Attribution methods by name: each runs, and spends about as many variants as it is told to."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lmjax import attribution
from lmjax.attribution import methods
from lmjax.attribution.methods import (
    Method,
    attribute,
    check_budget,
    check_methods,
    check_samples,
    pairs,
)
from lmjax.evaluation import Evaluator

SIZE = 16
IMAGE = np.full((SIZE, SIZE, 3), 0.5, np.float32)
SEGMENTS = np.arange(SIZE)[:, None] // 4 * 4 + np.arange(SIZE)[None] // 4  # 16 squares
KEY = jax.random.key(0)
METHODS = {name: methods.get(name) for name in methods.names()}
CAMS = ("gradcam", "gradcam_plus_plus", "hirescam", "layercam")
# Those that need a network in layers: tests/attribution/test_gradcam.py.
IN_LAYERS = (*CAMS, "scorecam", "ablationcam", "fullgrad")
PLAIN = [name for name in METHODS if name not in IN_LAYERS]
SAMPLING = [name for name in PLAIN if METHODS[name].budget is not None]


def reads_one_segment(image, masks):
    """Two logits, which the colours of segment 5 decide."""
    painted = masks[..., None] * image[None]
    side = masks.shape[1] // 4
    seen = painted[:, side : 2 * side, side : 2 * side].mean(axis=(1, 2, 3)) / 0.5
    return jnp.stack([2 * seen, -2 * seen], axis=-1)


@pytest.mark.parametrize("name", PLAIN)
@pytest.mark.filterwarnings("ignore:.*fewer than 10 a segment:UserWarning")
def test_every_method_points_at_the_segment_that_is_read(name):
    samples = None if METHODS[name].budget is None else 500
    # Its mask has 28 cells along each side; the others are quick on few pixels.
    larger = 2 if name == "meaningful_perturbation" else 1
    image, segments = (x.repeat(larger, 0).repeat(larger, 1) for x in (IMAGE, SEGMENTS))
    found = attribute(
        name, reads_one_segment, image, segments, key=KEY, target=0, num_samples=samples
    )
    assert found.heatmap.shape == segments.shape
    inside = found.heatmap[segments == 5].mean()
    assert inside == max(found.heatmap[s == segments].mean() for s in range(16))


@pytest.mark.parametrize("name", ["lime", "gradient", "occlusion"])
def test_objectives_by_name(name):
    found = {
        objective: attribute(
            name,
            reads_one_segment,
            IMAGE,
            SEGMENTS,
            key=KEY,
            target=0,
            num_samples=200 if name == "lime" else None,
            objective=objective,
        ).scores
        for objective in ("logit", "margin")
    }
    np.testing.assert_allclose(found["margin"], 2 * found["logit"], rtol=1e-3, atol=1e-5)


def test_units_name_the_objective():
    assert METHODS["lime"].unit_of("a cat") == "effect of a segment on the probability of a cat"
    assert METHODS["gradcam"].unit_of("a cat") == "Grad-CAM of the logit of a cat"
    assert METHODS["gradcam"].unit_of("a cat", "margin") == "Grad-CAM of the margin of a cat"
    assert all("objective" in method.unit for method in METHODS.values())
    assert Method(reads_one_segment, "own", "score for {}").unit_of("a cat") == "score for a cat"
    none = Method(lambda predictor, image, objective=None: 0, "own", "{objective} of {}")
    assert none.takes_objective
    assert (none.unit_of("a cat"), none.unit_of("a cat", "logit")) == (
        *("output of a cat", "logit of a cat"),
    )


@pytest.mark.parametrize("name", [name for name in PLAIN if METHODS[name].under == "every"])
@pytest.mark.filterwarnings("ignore:.*fewer than 10 a segment:UserWarning")
def test_the_evaluators_batch_size_changes_nothing(name):
    samples = None if METHODS[name].budget is None else 100
    few, many = (
        attribute(
            name,
            Evaluator(reads_one_segment, batch_size=batch_size),
            IMAGE,
            SEGMENTS,
            key=KEY,
            target=0,
            num_samples=samples,
        )
        for batch_size in (5, 64)
    )
    np.testing.assert_allclose(few.heatmap, many.heatmap, atol=1e-5 * abs(many.heatmap).max())


@pytest.mark.parametrize("name", SAMPLING)
@pytest.mark.parametrize("samples", [200, 700])
def test_methods_spend_what_they_are_told_to(name, samples):
    found = attribute(
        name, reads_one_segment, IMAGE, SEGMENTS, key=KEY, target=0, num_samples=samples
    )
    # Sobol takes a power of two of designs, of which those that coincide are evaluated once.
    assert (0 if name == "sobol" else 0.8 * samples) < found.num_variants <= samples + 1


@pytest.mark.parametrize("name", SAMPLING)
@pytest.mark.filterwarnings("ignore:.*fewer than 10 a segment:UserWarning")
def test_the_fewest_samples_are_enough_and_fewer_are_refused(name):
    with pytest.raises(
        ValueError, match=f"num_samples must be .* or more for {name} with 16"
    ) as error:
        check_samples([name], 1, 16)
    fewest = int(str(error.value).split()[3])
    with pytest.raises(ValueError, match=f"or more for {name} with 16 segments, got {fewest - 1}"):
        check_samples([name], fewest - 1, 16)
    check_samples([name], fewest, 16)
    attribute(name, reads_one_segment, IMAGE, SEGMENTS, key=KEY, target=0, num_samples=fewest)


def few_segments(number):
    return np.minimum(np.arange(SIZE) * number // SIZE, number - 1)[:, None].repeat(SIZE, 1)


@pytest.mark.parametrize("number", [1, 3, 7])
@pytest.mark.parametrize("name", SAMPLING)
@pytest.mark.filterwarnings("ignore:.*fewer than 10 a segment:UserWarning")
def test_the_smallest_budget_is_the_fewest_evaluations(name, number):
    def run(evaluations):
        segments = few_segments(number)
        options = {"key": KEY, "target": 0, "evaluations": evaluations}
        return attribute(name, reads_one_segment, IMAGE, segments, **options).num_variants

    with pytest.raises(ValueError, match=f"budget must be at least .* for {name}") as error:
        check_budget([name], 1, number)
    fewest = int(str(error.value).split()[5])
    check_budget([name], fewest, number)
    assert run(fewest) <= fewest
    with pytest.raises(ValueError, match=r"(evaluations|num_samples) must be"):
        run(fewest - 1)


def test_of_several_methods_one_that_needs_more_gets_it():
    chosen = ["lime", "kernelshap", "occlusion", "permutation_shapley"]
    message = "num_samples 35 .* 16 segments: kernelshap gets 38, permutation_shapley gets 62"
    with pytest.warns(UserWarning, match=message):
        assert check_samples(chosen, 35, 16) == {
            **{"lime": 35, "kernelshap": 38, "occlusion": None, "permutation_shapley": 62}
        }
    assert check_samples(chosen, None, 16) == dict.fromkeys(chosen)
    with pytest.raises(ValueError, match="num_samples must be 38 or more for kernelshap with 16"):
        check_samples(["kernelshap", "permutation_shapley", "occlusion"], 35, 16)


def test_samples_have_no_effect_on_methods_that_do_not_sample():
    check_samples(["occlusion"], None, 16)
    check_samples(["occlusion", "lime"], 100, 16)
    with pytest.raises(
        ValueError, match=r"num_samples has no effect on occlusion.*lime, kernelshap"
    ):
        check_samples(["occlusion"], 100, 16)


def test_no_number_of_samples_is_the_default_of_the_method():
    found = attribute("lime", reads_one_segment, IMAGE, SEGMENTS, key=KEY)
    expected = attribution.lime(reads_one_segment, IMAGE, SEGMENTS, key=KEY)
    np.testing.assert_array_equal(found.scores, expected.scores)
    assert found.num_variants == 1000


def test_names_are_checked():
    assert check_methods(["rise", "lime", "rise"]) == ("rise", "lime")
    with pytest.raises(ValueError, match=r"method must be one or more of lime.*got none"):
        check_methods([])
    with pytest.raises(
        ValueError, match=r"method must be one of lime.*got 'rize'; did you mean rise"
    ):
        check_methods(["rise", "rize"])


def test_methods_run_under_the_removals_they_can():
    removals = {"layer": False, "black": True}
    assert pairs(["lime", "meaningful_perturbation", "gradient"], removals) == [
        ("lime", "layer"),
        ("lime", "black"),
        ("meaningful_perturbation", "black"),
        ("gradient", methods.WHOLE),
    ]
    with pytest.raises(ValueError, match=r"removal must hold one that takes soft masks.*got layer"):
        pairs(["meaningful_perturbation"], {"layer": False})


@pytest.fixture
def register():
    """Registers methods for one test."""
    registered = []

    def register(name, function, **options):
        methods.register(name, function, description="Of a test.", **options)
        registered.append(name)

    yield register
    for name in registered:
        methods._REGISTRY.unregister(name)


def test_a_function_is_a_method_by_its_name(register):
    register("my_lime", attribution.lime)
    assert methods.names()[-1] == "my_lime"
    assert methods.description("my_lime") == "Of a test."
    method = methods.get("my_lime")
    assert (method.title, method.unit, method.under) == ("my lime", "score for {}", "every")
    given = (reads_one_segment, IMAGE, SEGMENTS)
    found = attribute("my_lime", *given, key=KEY, num_samples=300)
    np.testing.assert_array_equal(
        found.scores, attribute("lime", *given, key=KEY, num_samples=300).scores
    )
    assert found.num_variants == 300


def test_methods_are_given_what_their_signature_has(register):
    given = {}

    def mine(predictor, image, *, target=None, size=3):
        given.update(predictor=predictor, image=image, target=target, size=size)
        return attribution.leave_one_out(predictor, image, SEGMENTS)

    register("mine", mine, title="Mine", unit="{} a pixel", signed=False, under="blending")
    evaluator = Evaluator(reads_one_segment)
    attribute("mine", evaluator, IMAGE, SEGMENTS, key=KEY, target=1, num_samples=50)
    assert given == {"predictor": evaluator, "image": IMAGE, "target": 1, "size": 3}
    assert methods.get("mine") == Method(mine, "Mine", "{} a pixel", signed=False, under="blending")
    with pytest.raises(ValueError, match="num_samples has no effect on mine"):
        check_samples(["mine"], 100, 16)
    with pytest.raises(ValueError, match="objective has no effect on method mine"):
        attribute("mine", evaluator, IMAGE, SEGMENTS, key=KEY, objective="logit")


def test_what_is_no_method_is_refused(register):
    with pytest.raises(ValueError, match="method 'mine' must be a function of images; got 3"):
        register("mine", 3)
    register("mine", lambda predictor, image: 3)
    with pytest.raises(ValueError, match=r"method mine must return an .*; got 3"):
        attribute("mine", reads_one_segment, IMAGE, SEGMENTS, key=KEY)
    with pytest.raises(ValueError, match="under must be one of every, blending, none"):
        register("mine", attribution.lime, under="some")
    with pytest.raises(ValueError, match="method 'lime' comes with lmjax"):
        register("lime", attribution.rise)


def test_every_method_of_the_library_has_a_name():
    """But exact_shapley, which is for tests: KernelSHAP is exact on as few segments."""
    functions = {
        function
        for function in map(attribution.__dict__.get, attribution.__all__)
        if inspect.isfunction(function)
        and inspect.signature(function).return_annotation is attribution.Attribution
    }
    named = {METHODS[name].function for name in METHODS if name not in CAMS}
    named |= {getattr(attribution, name) for name in CAMS}  # by way of the last layer
    assert functions - {attribution.exact_shapley} == named

"""`evaluate(engine=...)`: the same logits, from full-size activations or visible positions."""

import dataclasses
import functools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

import lmjax
from lmjax.evaluation import jobs, programs
from lmjax.evaluation import plan as planner
from lmjax.masking import Masked, layers
from lmjax.masking.sparse import positions
from lmjax.masks import Coalitions, random_keep, segments
from lmjax.models import Classifier, checkpoints, registry
from lmjax.models.layers import Network, relu
from lmjax.models.networks.densenet import DenseNet
from lmjax.models.networks.efficientnet import EfficientNet
from lmjax.models.networks.resnet import BasicBlock, Bottleneck, ResNet
from tests.support import compilations


class AnyWindows(Network):
    """Windows and maps that no network of the registry has."""

    @nn.compact
    def __call__(self, inputs):
        contrast = jnp.array([1.0, -2.0, 0.5]).reshape(1, 1, 1, 3)
        x = layers.pointwise(self.begin(inputs), jnp.multiply, contrast)
        x = self.conv(8, (3, 5), (2, 3), padding=((0, 1), (1, 2)))(x)
        x = layers.seam(relu(self.norm()(x)))
        gate = self.conv(8, (1, 7))(x)
        gate = self.conv(8, (3, 1), dilation=(2, 1))(gate)
        x = layers.pointwise(x, lambda x, gate: x * jax.nn.sigmoid(gate), gate)
        x = layers.max_pool(x, window=(2, 3), stride=2, padding=((0, 1), (1, 1)), dilation=(2, 1))
        x = layers.seam(layers.window_sum(x, window=(3, 2), padding=((1, 1), (0, 1))))
        gate = jnp.tanh(layers.global_max_pool(x))[:, None, None]
        x = layers.pointwise(x, jnp.multiply, gate)
        return self.classify(layers.global_average_pool(x), "fc")


class Gated(Network):
    """A gate for each variant from one stage, on positions of another."""

    @nn.compact
    def __call__(self, inputs):
        x = relu(self.norm()(self.conv(8, 3, 2)(self.begin(inputs))))
        gate = jnp.tanh(layers.global_average_pool(x))[:, None, None]
        x = layers.pointwise(layers.max_pool(x, window=2, stride=2), jnp.multiply, gate)
        return self.classify(layers.global_max_pool(x), "fc")


small_resnet = partial(ResNet, (1, 1), num_classes=5, width=8)
MODULES = {
    "basic": small_resnet(BasicBlock),
    "bottleneck": small_resnet(Bottleneck),
    "grouped": small_resnet(partial(Bottleneck, groups=2, width_per_group=32)),
    "any windows": AnyWindows(num_classes=5),
    "concatenated": DenseNet((1, 2), 4, 8, num_classes=5),
    "gated": Gated(num_classes=5),
    "squeezed": EfficientNet(((True, 2, 3, 1, 8, 1), (False, 4, 3, 2, 8, 2)), 8, 16, num_classes=5),
}
SIZE = (44, 37)


@functools.cache
def random_variables(kind):
    module = MODULES[kind]
    rng = np.random.default_rng(0)

    def draw(leaf):
        return jnp.asarray(rng.normal(size=leaf.shape) / np.sqrt(leaf.size / leaf.shape[-1]) + 0.1)

    variables = jax.tree.map(draw, checkpoints.abstract_variables(module))
    variables["batch_stats"] = jax.tree.map(jnp.abs, variables["batch_stats"])
    return variables


def random_predictor(kind, masking):
    preprocessing = registry.network("resnet18_digits").preprocessing
    classifier = Classifier(random_variables(kind), MODULES[kind], preprocessing)
    return lmjax.Predictor(classifier, masking)


def random_masks(count, seed=0):
    """Blocks of 5 pixels; everything, nothing, one pixel at the border."""
    rng = np.random.default_rng(seed)
    coarse = rng.random((count, 9, 8)) < rng.random((count, 1, 1))
    masks = np.kron(coarse, np.ones((5, 5), bool))[:, : SIZE[0], : SIZE[1]]
    masks[3], masks[count // 2] = True, False
    masks[-1] = False
    masks[-1, 0, 17] = True
    return masks


IMAGE = np.random.default_rng(0).random((*SIZE, 3)).astype(np.float32)


@pytest.mark.parametrize(
    ("kind", "masking", "shared"),
    [
        ("basic", lmjax.LayerMasking(), True),
        ("bottleneck", lmjax.LayerMasking(), False),
        ("grouped", lmjax.LayerMasking(), False),
        ("any windows", lmjax.LayerMasking(), True),
        ("concatenated", lmjax.LayerMasking(), False),
        ("squeezed", lmjax.LayerMasking(), True),
        ("bottleneck", lmjax.LayerMasking(padding="none"), False),
        ("bottleneck", lmjax.PartialConvolution(), False),
        ("bottleneck", lmjax.LayerMasking(depth=0), True),
        ("bottleneck", lmjax.LayerMasking(depth=1), False),
    ],
    ids=str,
)
def test_engines_agree(kind, masking, shared):
    """Where the rows of others are shared is seen in masking/sparse/test_sharing.py."""
    predictor, masks = random_predictor(kind, masking), random_masks(21)
    expected = lmjax.evaluate(predictor, IMAGE, masks, batch_size=2, engine="dense")
    assert np.ptp(expected, axis=0).min() > 0.01 * np.abs(expected).max()
    for engine in ("visible", *(["shared"] if shared else [])):
        actual = lmjax.evaluate(predictor, IMAGE, masks, batch_size=2, engine=engine)
        np.testing.assert_allclose(actual, expected, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize("count", [1, 4])
def test_gates_of_one_variant_and_of_several(count):
    predictor, masks = random_predictor("gated", lmjax.LayerMasking()), random_masks(9)[:count]
    expected, actual = (
        lmjax.evaluate(predictor, IMAGE, masks, engine=engine) for engine in ("dense", "visible")
    )
    np.testing.assert_allclose(actual, expected, atol=1e-5 * np.abs(expected).max())


def test_a_layout_until_a_seam_is_one_that_stops_there():
    job = job_of(5)

    def described(layout):
        kinds = [[each.kind for each in found] for found in (layout.sets, layout.requests)]
        positions = layout.passed[-1].positions.origin
        return *kinds, layout.origins, layout.seams, layout.costs().tolist(), positions

    deepest = programs.record(job, stop=3, sharing=True)
    for seam in (1, 2, 3):
        stopped = programs.record(job, stop=seam, sharing=True)
        assert described(deepest.until(seam)) == described(stopped)


def test_groups_that_share_less_than_those_that_are_counted_are_divided(monkeypatch):
    monkeypatch.setattr(planner, "_MOST_SHARING", 8)
    predictor, masks = random_predictor("basic", lmjax.LayerMasking()), random_masks(24)
    masks[8:] = masks[3]
    divided, halves = [], programs._halves
    monkeypatch.setattr(programs, "_halves", lambda *x: divided.append(x) or halves(*x))
    expected = lmjax.evaluate(predictor, IMAGE, masks, engine="dense")
    actual = lmjax.evaluate(predictor, IMAGE, masks, engine="shared")
    assert divided
    np.testing.assert_allclose(actual, expected, atol=1e-5 * np.abs(expected).max())


def job_of(count):
    predictor = random_predictor("basic", lmjax.LayerMasking())
    return jobs.job_of_image(predictor, IMAGE, random_masks(count), jobs.Options())


def test_groups_of_large_images_are_smaller(monkeypatch):
    assert planner._most_sharing(job_of(5)) == 128
    monkeypatch.setattr(planner, "_PIXELS_OF_GROUPS", 40 * SIZE[0] * SIZE[1])
    assert planner._most_sharing(job_of(5)) == 20
    groups, room = planner._groups(job_of(64))
    assert max(map(len, groups)) == 16
    assert room == 20


def test_auto_takes_no_groups_where_few_variants_fit(monkeypatch):
    engines = ("dense", "visible", "shared")
    for constant in ("_COMPILING_VISIBLE", "_COMPILING_SHARED", "_SHARED_POSITION"):
        monkeypatch.setattr(planner, constant, 0)
    assert planner.make_plan(job_of(200), "auto", engines=engines).groups
    monkeypatch.setattr(planner, "_PIXELS_OF_GROUPS", 31 * SIZE[0] * SIZE[1])
    assert not planner.make_plan(job_of(200), "auto", engines=engines).groups
    assert planner.make_plan(job_of(200), "shared", engines=engines).groups


@pytest.mark.parametrize("engine", ["visible", "shared"])
def test_a_convolution_that_meets_the_image_again(engine):
    """Its positions are not limited to those of the image, which has no rows."""
    rng = np.random.default_rng(0)
    weights = {"w": 0.3 * rng.normal(size=(3, 3, 3, 3)), "v": rng.normal(size=(3, 5))}

    def network(p, x):
        x = (x - 0.5) / 0.25
        for shortcut in (x, 0):
            x = jax.lax.conv_general_dilated(
                x, p["w"], (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
            )
            x = jax.nn.relu(x + shortcut)
        return x.mean((1, 2)) @ p["v"]

    weights = jax.tree.map(jnp.float32, weights)
    classifier = lmjax.models.from_function(network, weights, image_size=None)
    predictor, masks = lmjax.Predictor(classifier, lmjax.LayerMasking()), random_masks(9)
    expected = lmjax.evaluate(predictor, IMAGE, masks, engine="dense")
    found = lmjax.evaluate(predictor, IMAGE, masks, engine=engine)
    np.testing.assert_allclose(found, expected, atol=2e-5 * np.abs(expected).max())


def _conv(x, kernel, **options):
    dimensions = ("NHWC", "HWIO", "NHWC")
    return jax.lax.conv_general_dilated(
        x, kernel, (1, 1), "SAME", dimension_numbers=dimensions, **options
    )


def _as_many_groups_as_outputs(p, x):
    x = _conv(jax.nn.relu(_conv(x, p["wide"])), p["groups"], feature_group_count=4)
    return _conv(jax.nn.relu(x), p["v"]).mean((1, 2))


def _nothing_but_a_pool(p, x):
    dims = (1, 2, 2, 1)
    x = jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, dims, dims, "VALID")
    return x.mean((1, 2)) @ p["w"]


def _dense_on_pixels(p, x):
    return x[:, :4, :4].reshape(len(x), -1) @ p["pixels"]


@pytest.mark.parametrize("engine", ["visible", "shared"])
@pytest.mark.parametrize(
    "network", [_as_many_groups_as_outputs, _nothing_but_a_pool, _dense_on_pixels]
)
def test_networks_with_few_rows_or_none(network, engine):
    shapes = {"wide": (3, 3, 3, 8), "groups": (3, 3, 2, 4), "v": (1, 1, 4, 5)}
    shapes |= {"w": (3, 5), "pixels": (48, 5)}
    rng = np.random.default_rng(0)
    weights = {key: jnp.float32(0.3 * rng.normal(size=shape)) for key, shape in shapes.items()}
    classifier = lmjax.models.from_function(network, weights, image_size=None)
    predictor, masks = lmjax.Predictor(classifier, lmjax.LayerMasking()), random_masks(9)
    expected = lmjax.evaluate(predictor, IMAGE, masks, engine="dense")
    found = lmjax.evaluate(predictor, IMAGE, masks, engine=engine)
    np.testing.assert_allclose(found, expected, atol=2e-5 * np.abs(expected).max())


@pytest.mark.parametrize(("count", "sizes", "room"), [(5, [5], 32), (129, [65, 64], 96)])
def test_groups_that_share_rows_are_of_one_size(count, sizes, room):
    groups, found = planner._groups(job_of(count))
    assert [len(group) for group in groups] == sizes
    np.testing.assert_array_equal(np.concatenate(groups), np.arange(count))
    assert found == room


@pytest.mark.parametrize("ahead", [1, 3])
def test_masks_that_are_asked_for_ahead_come_in_their_order(ahead):
    job, parts = job_of(9), [np.array([4, -1]), np.array([[2], [7]])]
    found = list(job.masks_ahead(parts, ahead=ahead))
    for part, masks in zip(parts, found, strict=True):
        np.testing.assert_array_equal(masks, job.masks(part))
    np.testing.assert_array_equal(found[0][0], random_masks(9)[4])
    assert not found[0][1].any()
    assert list(job.masks_ahead([])) == []


@pytest.mark.parametrize("engine", ["visible", "shared"])
def test_what_lies_under_every_mask_changes_no_bit(engine):
    predictor, masks = random_predictor("bottleneck", lmjax.LayerMasking()), random_masks(8)
    masks &= np.arange(SIZE[1]) < 20
    expected = lmjax.evaluate(predictor, IMAGE, masks, engine=engine)
    for hidden in (np.nan, np.inf, -np.inf, 1e30):
        poisoned = np.where(masks.any(axis=0)[..., None], IMAGE, np.float32(hidden))
        actual = lmjax.evaluate(predictor, poisoned, masks, engine=engine)
        np.testing.assert_array_equal(actual, expected)


@pytest.fixture
def free_overhead(monkeypatch):
    """For "auto", compiling, gathers and full size cost nothing: these networks are too small."""
    for name in ("_COMPILING_VISIBLE", "_COMPILING_SHARED"):
        monkeypatch.setattr(planner, name, 0)
    for name in ("_GATHERED_ROW", "_FULL_SIZE_NUMBER"):
        monkeypatch.setattr(positions, name, 0)


def number_of_programs():
    """How many programs that compute logits have been compiled."""
    calls = programs._dense_call, programs._visible_call, programs._shared_call
    return sum(call.num_programs() for call in calls)


@pytest.mark.parametrize("engine", ["visible", "auto"])
def test_few_compilations_over_many_random_coalitions(engine, free_overhead):
    predictor, labels = (
        random_predictor("bottleneck", lmjax.LayerMasking()),
        segments.grid(IMAGE, size=8),
    )
    keeps = [
        random_keep(
            int(labels.max()) + 1,
            60,
            key=jax.random.key(seed),
            keep_probability=probability,
            first_all_visible=seed < 2,
        )
        for seed, probability in enumerate((0.5, 0.25, 0.1, 0.4, 0.02))
    ]
    for call in (programs._dense_call, programs._visible_call, programs._shared_call):
        call.clear_cache()
    for keep in keeps:
        lmjax.evaluate(predictor, IMAGE, Coalitions(labels, keep), engine=engine)
    assert 1 <= number_of_programs() <= 6


def test_variants_without_room_are_computed_again(monkeypatch):
    predictor, masks = random_predictor("bottleneck", lmjax.LayerMasking()), random_masks(20)
    expected = lmjax.evaluate(predictor, IMAGE, masks, engine="dense")
    monkeypatch.setattr(planner, "_SPARE", 1e-3)
    missed, dense_calls = [], programs.dense_calls

    def noted(job, variants):
        missed.append(len(variants))
        return dense_calls(job, variants)

    monkeypatch.setattr(programs, "dense_calls", noted)
    actual = lmjax.evaluate(predictor, IMAGE, masks, engine="shared")
    assert 0 < sum(missed) < 20
    np.testing.assert_allclose(actual, expected, atol=1e-5 * np.abs(expected).max())


def plan(predictor, masks, engine="auto", expected=None):
    job = jobs.job_of_image(predictor, IMAGE, masks, jobs.Options(expected=expected))
    return planner.make_plan(job, engine, engines=predictor.engines)


def left_columns(variants, columns):
    """Masks that show so many columns, in blocks of rows that differ between variants."""
    rows = np.random.default_rng(0).random((variants, SIZE[0], 1)) < 0.9
    return rows & (np.arange(SIZE[1]) < columns)


def test_auto_takes_each_variant_the_way_that_is_faster_for_it(free_overhead):
    predictor = random_predictor("bottleneck", lmjax.LayerMasking())
    everything, little = np.ones((6, *SIZE), bool), left_columns(6, 4)
    assert plan(predictor, everything).dense.tolist() == [0, 1, 2, 3, 4, 5]
    assert len(plan(predictor, little).dense) == 0
    mixed = np.stack([everything, little], axis=1).reshape(-1, *SIZE)
    assert plan(predictor, mixed).dense.tolist() == [0, 2, 4, 6, 8, 10]
    assert np.concatenate(plan(predictor, mixed).visible).tolist() == [1, 3, 5, 7, 9, 11]
    expected = lmjax.evaluate(predictor, IMAGE, mixed, engine="dense")
    actual = lmjax.evaluate(predictor, IMAGE, mixed, engine="auto")
    np.testing.assert_allclose(actual, expected, atol=1e-5 * np.abs(expected).max())


def test_auto_shares_where_many_variants_are_alike(free_overhead, monkeypatch):
    monkeypatch.setattr(planner, "_SHARED_POSITION", 0)  # which only wider networks are worth
    predictor = random_predictor("bottleneck", lmjax.LayerMasking())
    alike = np.ones((128, *SIZE), bool)
    alike[np.arange(128), np.arange(128) % 20, np.arange(128) % 20] = False
    assert plan(predictor, alike).seam is not None
    noise = np.random.default_rng(0).random((128, *SIZE)) < 0.97
    assert plan(predictor, noise).seam is None


def test_the_number_of_variants_that_is_expected_decides_whether_compiling_pays(monkeypatch):
    monkeypatch.setattr(positions, "_GATHERED_ROW", 0)  # which only wider networks are worth
    predictor, little = random_predictor("bottleneck", lmjax.LayerMasking()), left_columns(50, 4)
    assert len(plan(predictor, little).dense) == 50
    assert len(plan(predictor, little, expected=10**7).dense) == 0


@pytest.mark.parametrize("expected", [None, 10**6])
def test_a_plan_does_not_depend_on_what_was_evaluated_before(expected):
    predictor = random_predictor("bottleneck", lmjax.LayerMasking())
    evaluator, few = lmjax.Evaluator(predictor), left_columns(50, 4)
    alone = evaluator(IMAGE, few, expected=expected)
    for masks in (random_masks(150), left_columns(90, 9), few):
        evaluator(IMAGE, masks, expected=10**6)
    np.testing.assert_array_equal(evaluator(IMAGE, few, expected=expected), alone)


def test_auto_compiles_nothing_for_small_jobs():
    predictor = random_predictor("bottleneck", lmjax.LayerMasking())
    with compilations.counted() as compiled:
        chosen = plan(predictor, left_columns(100, 4))
    assert len(chosen.dense) == 100
    assert not compiled


def test_auto_is_dense_on_devices_whose_costs_are_unknown(monkeypatch):
    predictor = random_predictor("bottleneck", lmjax.LayerMasking())
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert len(plan(predictor, left_columns(6, 4), expected=10**6).dense) == 6


def test_other_predictors_are_dense():
    predictor = random_predictor("basic", lmjax.Replace("grey"))
    masks = random_masks(5)
    expected = lmjax.evaluate(predictor, IMAGE, masks, engine="dense")
    logits = lmjax.evaluate(predictor, IMAGE, masks, engine="auto")
    np.testing.assert_array_equal(logits, expected)
    with pytest.raises(ValueError, match="engine 'visible' needs an lmjax"):
        lmjax.evaluate(predictor, IMAGE, masks, engine="visible")
    with pytest.raises(ValueError, match="must be one of auto, dense, visible, shared; got 'rows'"):
        lmjax.evaluate(predictor, IMAGE, masks, engine="rows")


class FullSizeOnly(ResNet):
    """A network with a layer of the user's own, which takes full-size activations apart."""

    def begin(self, inputs):
        x, mask = super().begin(inputs)
        return Masked(x[:, ::1], mask[:, ::1])


def test_auto_is_dense_for_modules_that_take_full_size_activations_only():
    predictor = random_predictor("basic", lmjax.LayerMasking())
    module = FullSizeOnly((1, 1), BasicBlock, num_classes=5, width=8)
    own = dataclasses.replace(predictor.classifier, module=module)
    predictor = lmjax.Predictor(own, lmjax.LayerMasking())
    few = left_columns(6, 4)
    assert len(plan(predictor, few, expected=10**6).dense) == 6
    with pytest.raises(ValueError, match="too many values to unpack"):
        lmjax.evaluate(predictor, IMAGE, few, engine="visible")


class Counting(ResNet):
    """A network that pools in another way where there are more than two images."""

    dilations: tuple[int, ...] = (1, 2)

    def begin(self, inputs):
        inputs = super().begin(inputs)
        dilation = self.dilations[len(inputs.x) > 2]
        if dilation == 0:
            return inputs
        return layers.max_pool(inputs, window=3, stride=1, padding=dilation, dilation=dilation)


@pytest.mark.parametrize("dilations", [(1, 2), (0, 1), (1, 0)], ids=str)
def test_networks_that_depend_on_the_number_of_variants_have_no_rows(dilations):
    predictor = random_predictor("basic", lmjax.LayerMasking())
    module = Counting((1, 1), BasicBlock, num_classes=5, width=8, dilations=dilations)
    own = dataclasses.replace(predictor.classifier, module=module)
    predictor = lmjax.Predictor(own, lmjax.LayerMasking())
    with pytest.raises(RuntimeError, match=r"how many variants .*; take engine='dense'"):
        lmjax.evaluate(predictor, IMAGE, random_masks(9), engine="visible")


class Seamless(ResNet):
    """A network that marks no place where it can be cut."""

    @nn.compact
    def __call__(self, inputs):
        x = layers.conv(self.begin(inputs), self.param("kernel", *_KERNEL), padding=1)
        return self.classify(layers.global_average_pool(x), "fc")


_KERNEL = nn.initializers.normal(), (3, 3, 3, 4)


def test_networks_without_seams_share_nothing():
    module = Seamless((1, 1), BasicBlock, num_classes=5, width=8)
    variables = module.init(jax.random.key(0), Masked(jnp.zeros((1, *SIZE, 3))))
    own = random_predictor("basic", lmjax.LayerMasking()).classifier
    own = dataclasses.replace(own, module=module, variables=variables)
    predictor, masks = lmjax.Predictor(own, lmjax.LayerMasking()), random_masks(70)
    assert plan(predictor, masks, "shared").seam is None
    expected = lmjax.evaluate(predictor, IMAGE, masks, engine="dense")
    actual = lmjax.evaluate(predictor, IMAGE, masks, engine="shared")
    np.testing.assert_allclose(actual, expected, atol=1e-5 * np.abs(expected).max())

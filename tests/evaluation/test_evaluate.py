import dataclasses
import importlib
import tracemalloc
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lmjax
from lmjax import objectives
from lmjax._utils import sharding
from lmjax.evaluation import Predictor, evaluate, jobs, programs
from lmjax.evaluation.jobs import default_batch_size
from lmjax.evaluation.objectives import Measured
from lmjax.masks import Coalitions, random_keep, segments
from lmjax.removals.replace import Replace
from tests.support import compilations
from tests.support.small_classifier import small_classifier

module = importlib.import_module("lmjax.evaluation.evaluator")

RNG = np.random.default_rng(0)
H, W = 8, 6
IMAGE = RNG.random((H, W, 3)).astype(np.float32)
MASKS = RNG.random((40, H, W)) < 0.5
SEGMENTS = segments.grid(IMAGE, size=2)
KEEP = np.asarray(random_keep(12, 40, key=jax.random.key(0)))


def predictor():
    return Predictor(small_classifier())


@pytest.mark.parametrize("num_variants", [1, 3, 8, 9, 40])
@pytest.mark.parametrize("batch_size", [1, 8, 1000, None])
def test_rows_are_the_predictors_whatever_the_batch_size(num_variants, batch_size):
    network = predictor()
    expected = network(IMAGE, MASKS[:num_variants])
    logits = evaluate(network, IMAGE, MASKS[:num_variants], batch_size=batch_size)
    assert isinstance(logits, np.ndarray)
    assert logits.dtype == np.float32
    np.testing.assert_allclose(logits, expected, atol=1e-6)


def test_coalitions_are_the_same_as_their_masks():
    network = predictor()
    coalitions = Coalitions(SEGMENTS, KEEP)
    masks = np.stack([row[SEGMENTS] for row in KEEP])
    expected = evaluate(network, IMAGE, masks, batch_size=16)
    np.testing.assert_array_equal(evaluate(network, IMAGE, coalitions, batch_size=16), expected)


@pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.float32])
def test_masks_and_images_of_other_types_and_places(dtype):
    network = predictor()
    expected = evaluate(network, IMAGE, MASKS)
    np.testing.assert_array_equal(evaluate(network, IMAGE, MASKS.astype(dtype)), expected)
    on_device = jnp.asarray(IMAGE), jnp.asarray(MASKS, dtype)
    np.testing.assert_array_equal(evaluate(network, *on_device), expected)
    np.testing.assert_allclose(
        evaluate(network, IMAGE.astype(np.float64), MASKS), expected, atol=1e-6
    )


# -- compilation


def test_one_trace_per_shape_and_batch_size_and_none_per_mask():
    network = predictor()
    traces = network.classifier.traces
    for num_variants in (100, 1000, 100, 70):
        keep = random_keep(12, num_variants, key=jax.random.key(num_variants))
        evaluate(network, IMAGE, Coalitions(SEGMENTS, keep), batch_size=64)
    assert len(traces) == 1
    evaluate(network, 1 - IMAGE, Coalitions(SEGMENTS[::-1], KEEP), batch_size=64)
    assert len(traces) == 1
    for _ in range(2):
        evaluate(network, IMAGE, MASKS, batch_size=32)
    assert len(traces) == 2


def test_new_weights_or_a_new_baseline_do_not_trace_again():
    network = Predictor(small_classifier(), Replace((0.1, 0.2, 0.3)))
    first = evaluate(network, IMAGE, MASKS)
    second = evaluate(jax.tree.map(lambda leaf: leaf / 2, network), IMAGE, MASKS)
    assert len(network.classifier.traces) == 1
    assert abs(first - second).max() > 0.01


def test_an_evaluator_is_a_predictor_with_options():
    expected = evaluate(predictor(), IMAGE, MASKS, batch_size=2)
    evaluator = lmjax.Evaluator(predictor(), batch_size=2)
    np.testing.assert_array_equal(evaluate(evaluator, IMAGE, MASKS), expected)
    np.testing.assert_array_equal(evaluate(evaluator, IMAGE, MASKS, batch_size=2), expected)


@pytest.mark.parametrize(("option", "value"), [("mesh", "all"), ("progress", "no")])
def test_options_are_checked_when_the_evaluator_is_made(option, value):
    with pytest.raises(ValueError, match=f"{option} must be"):
        lmjax.Evaluator(predictor(), **{option: value})


def test_counting_the_classes_costs_no_further_trace():
    network = predictor()
    assert lmjax.Evaluator(network).num_classes(IMAGE, MASKS) == 4
    evaluate(network, IMAGE, MASKS)
    assert len(network.classifier.traces) == 1


def test_weights_are_arguments_of_the_compiled_program_never_constants():
    network = predictor()
    coalitions = Coalitions(SEGMENTS, KEEP)
    job = jobs.job_of_image(network, IMAGE, coalitions, jobs.Options(batch_size=8))
    rows = job.take(np.zeros((2, 8), int))
    inputs = job.arrays, job.images, job.shared, rows, np.ones(1, int)
    text = programs._dense_call.lower(*inputs, static=job.static, mesh=job.mesh).as_text()
    (signature,) = [line for line in text.splitlines() if "@main" in line]
    assert "tensor<8x6x3x4xf32>" in signature
    assert "dense<[[[[" not in text


def test_one_compilation_from_few_variants_to_many():
    network = predictor()
    with compilations.counted() as compiled:
        for count in (8, 9, 40, 23):
            evaluate(network, IMAGE, MASKS[:count], batch_size=8)
    assert len(compiled) <= 2  # the program, and moving the image to the device
    with compilations.counted() as compiled:
        evaluate(network, IMAGE, 1 - MASKS, batch_size=8)
    assert len(compiled) == 0


# -- kinds of predictors


@jax.tree_util.register_pytree_node_class
@dataclasses.dataclass
class Module:
    """As Equinox modules are: arrays, functions and settings are all leaves."""

    weights: jax.Array
    activation: Callable
    scale: float
    name: np.ndarray

    def __call__(self, image, masks):
        pixels = jnp.where(masks[..., None], image[None], 0).mean(axis=(1, 2))
        return self.scale * self.activation(pixels @ self.weights)

    def tree_flatten(self):
        return dataclasses.astuple(self), None

    @classmethod
    def tree_unflatten(cls, _, leaves):
        return cls(*leaves)


def test_plain_functions_methods_and_mixed_pytrees_are_predictors():
    weights = jax.random.normal(jax.random.key(0), (3, 5))
    mixed = Module(weights, jnp.tanh, 2.0, None)
    expected = mixed(jnp.asarray(IMAGE), jnp.asarray(MASKS))

    def closure(image, masks):
        return mixed(image, masks)

    partial = jax.tree_util.Partial(lambda w, i, m: Module(w, jnp.tanh, 2.0, None)(i, m), weights)
    from_numpy = dataclasses.replace(mixed, weights=np.asarray(weights))
    for each in (mixed, closure, closure.__call__, partial, from_numpy, jax.jit(closure)):
        np.testing.assert_allclose(evaluate(each, IMAGE, MASKS), expected, atol=1e-6)


def test_outputs_of_half_precision_become_float32():
    logits = evaluate(lambda i, m: m.sum(axis=2).astype(jnp.bfloat16), IMAGE, MASKS)
    assert logits.dtype == np.float32
    np.testing.assert_array_equal(logits, MASKS.sum(axis=2))


def test_settings_that_are_equal_and_of_another_type_are_other_settings():
    def network(flag, image, masks):
        return jnp.full((len(masks), 2), {bool: 1.0, int: 2.0, float: 3.0}[type(flag)])

    for flag, expected in ((True, 1), (1, 2), (1.0, 3)):
        predictor = jax.tree_util.Partial(network, flag)
        found = lmjax.evaluate(predictor, np.zeros((4, 4, 3)), np.ones((2, 4, 4), bool))
        np.testing.assert_array_equal(found, expected)


def test_leaves_that_cannot_be_static_are_an_error():
    mixed = Module(jnp.ones((3, 5)), jnp.tanh, 2.0, np.array(["cat", "dog"]))
    with pytest.raises(ValueError, match="neither an array nor hashable"):
        evaluate(mixed, IMAGE, MASKS)


@pytest.mark.parametrize("result", [lambda i, m: m, lambda i, m: i[0], lambda i, m: (i, m)])
def test_predictors_that_return_no_logits_are_an_error(result):
    with pytest.raises(ValueError, match="predictor must return logits"):
        evaluate(result, IMAGE, MASKS)


def test_what_cannot_be_called_is_an_error():
    with pytest.raises(ValueError, match="predictor must be a function"):
        evaluate(small_classifier(), IMAGE, MASKS)


# -- memory


class Recorder:
    """Stands before the compiled function and weighs all arrays on the device at every call."""

    def __init__(self, run):
        self.run, self.weights = run, []
        self.key = run.key

    def __call__(self, *arguments, **options):
        return self._weighed(self.run(*arguments, **options))

    def compiled(self, *arguments, **options):
        traced, program = self.run.compiled(*arguments, **options)
        return traced, lambda *arrays: self._weighed(program(*arrays))

    def _weighed(self, logits):
        self.weights.append(sum(array.nbytes for array in jax.live_arrays()))
        return logits


def with_threads(monkeypatch, number):
    monkeypatch.setattr(jobs, "threads_of", lambda mesh: number)


@pytest.mark.parametrize("threads", [1, 2])
def test_memory_depends_on_the_batch_size_and_not_on_the_number_of_variants(monkeypatch, threads):
    with_threads(monkeypatch, threads)
    image = np.zeros((64, 64, 3), np.float32)
    grid = segments.grid(image)

    def network(image, masks):
        return masks.mean(axis=(1, 2))[:, None] + image.mean(axis=(0, 1))[None]

    peaks = {}
    for num_variants in (100, 10_000):
        coalitions = Coalitions(grid, RNG.random((num_variants, 16)) < 0.5)
        recorder = Recorder(programs._dense_call)
        with monkeypatch.context() as patch:
            patch.setattr(programs, "_dense_call", recorder)
            tracemalloc.start()
            evaluate(network, image, coalitions, batch_size=32)
            host = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
        peaks[num_variants] = max(recorder.weights), host
    on_device, on_host = np.subtract(peaks[10_000], peaks[100])
    # 10,000 masks would be 41 MB, and all that calls are given and answer 200 kB, of which that of
    # one call more than there are threads may be there.
    assert on_device < 15_000 * (threads + 1)
    assert on_host < 1_000_000


@pytest.mark.parametrize(
    ("batches_per_call", "expected"),
    [
        (1, ["run", "run", "fetch", "run", "fetch", "run", "fetch", "fetch"]),
        (2, ["run", "run", "fetch", "fetch"]),
        (8, ["run", "fetch"]),
    ],
)
def test_at_most_two_calls_of_one_thread_are_under_way(monkeypatch, batches_per_call, expected):
    with_threads(monkeypatch, 1)
    pixels = batches_per_call * 10 * IMAGE[..., 0].size
    monkeypatch.setattr(jobs, "_CPU_PIXELS_PER_CALL", pixels)
    events = []
    run = programs._dense_call

    class Answer:
        def __init__(self, *arguments, **options):
            events.append("run")
            self.answer = run(*arguments, **options)

        def __array__(self, dtype=None, copy=None):
            events.append("fetch")
            return np.asarray(self.answer)

    monkeypatch.setattr(programs, "_dense_call", Answer)
    evaluate(predictor(), IMAGE, MASKS, batch_size=10)
    assert events == expected


def test_batches_of_padding_alone_are_not_computed():
    """40 variants in batches of 10: four of the eight batches of a call."""
    computed = []

    def network(image, masks):
        jax.debug.callback(lambda: computed.append(1))
        return masks.mean(axis=(1, 2))[:, None]

    evaluate(network, IMAGE, MASKS, batch_size=10)
    jax.effects_barrier()
    assert len(computed) == 4


# -- batch size


def test_default_batch_sizes():
    assert default_batch_size((224, 224)) == 4
    assert default_batch_size((128, 128)) == 16
    assert default_batch_size((2000, 2000)) == 1


def test_default_batch_sizes_on_an_accelerator(monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert default_batch_size((224, 224)) == 256


@pytest.mark.parametrize(
    ("batch_size", "num_variants", "expected"),
    [(None, 5, 8), (None, 10**6, 16), (100, 64, 64), (100, 1000, 100), (7, 1, 1), (3, 3, 3)],
)
def test_batches_are_no_larger_than_needed(batch_size, num_variants, expected):
    one = sharding.local_mesh()
    assert jobs._per_device(batch_size, num_variants, (128, 128), one) == expected


@pytest.mark.parametrize("batch_size", [0, -4, 2.5, True])
def test_bad_batch_sizes_are_errors(batch_size):
    with pytest.raises(ValueError, match="batch_size"):
        evaluate(predictor(), IMAGE, MASKS, batch_size=batch_size)


# -- progress


def test_no_progress_bar_unless_on_a_terminal(capfd):
    evaluate(predictor(), IMAGE, MASKS, batch_size=4)
    assert capfd.readouterr().err == ""


def test_a_progress_bar_can_be_forced_and_counts_variants_not_padding(capfd):
    evaluate(predictor(), IMAGE, MASKS, batch_size=16, progress=True)
    assert "40/40" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("progress", "batch_size", "shown"),
    [
        (None, 8, True),
        (None, 64, False),
        (False, 8, False),
    ],
)
def test_on_a_terminal_runs_of_several_batches_show_one(monkeypatch, progress, batch_size, shown):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    job = jobs.job_of_image(predictor(), IMAGE, MASKS, jobs.Options(batch_size=batch_size))
    with module._progress_bar(job, progress) as bar:
        assert bar.disable is not shown


# -- bad input


@pytest.mark.parametrize(
    ("image", "masks", "message"),
    [
        (IMAGE[..., 0], MASKS, r"image must be \[H, W, C\], got shape \(8, 6\)"),
        ((255 * IMAGE).astype(np.uint8), MASKS, "divide 0..255 by 255"),
        (255 * IMAGE, MASKS, r"in \[0, 1\], got values from"),
        (IMAGE - 1, MASKS, r"in \[0, 1\], got values from"),
        (IMAGE, MASKS[:, :4], r"masks must be \[N, 8, 6\]"),
        (IMAGE, MASKS[0], r"masks\[None\]"),
        (IMAGE, 255 * MASKS, "got 255"),
        (IMAGE, MASKS * 0.5, "got 0.5"),
        (IMAGE, MASKS[:0], "at least one variant"),
        (IMAGE, np.zeros((3, H, W)), "no visible pixel .* 1 = visible"),
        (IMAGE, Coalitions(SEGMENTS, np.zeros((3, 12))), "no visible pixel"),
        (IMAGE, Coalitions(SEGMENTS.T, KEEP), r"shape \(6, 8\).*image \(8, 6\)"),
    ],
)
def test_bad_input_is_an_error(image, masks, message):
    with pytest.raises(ValueError, match=message):
        evaluate(predictor(), image, masks)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_visible_nan_is_an_error_that_counts_and_names(value):
    image = IMAGE.copy()
    image[2:4, 1] = value
    masks = np.ones((2, H, W), bool)
    with pytest.raises(ValueError, match=r"in 2 visible pixels \(first at row 2, column 1\)"):
        evaluate(predictor(), image, masks)
    masks[0, 2:4] = False
    with pytest.raises(ValueError, match="in 2 visible pixels"):
        evaluate(predictor(), image, masks)


@pytest.mark.parametrize("value", [np.nan, np.inf, 300.0])
def test_what_every_variant_hides_may_be_anything_and_is_never_read(value):
    image = IMAGE.copy()
    image[SEGMENTS == 3] = value
    keep = KEEP.copy()
    keep[:, 3] = False
    for network in (predictor(), Predictor(small_classifier(), Replace("grey"))):
        for masks in (Coalitions(SEGMENTS, keep), keep[:, SEGMENTS]):
            np.testing.assert_array_equal(
                evaluate(network, image, masks), evaluate(network, IMAGE, masks)
            )


@pytest.mark.parametrize("value", [np.nan, np.inf, 300.0])
@pytest.mark.parametrize("baseline", ["image_mean", "blur", "rise_blur", lambda image: image[::-1]])
def test_what_is_hidden_must_be_colours_where_the_removal_reads_it(baseline, value):
    replace = Replace(baseline)
    assert replace.reads_hidden
    image = IMAGE.copy()
    image[SEGMENTS == 3] = value
    keep = KEEP.copy()
    keep[:, 3] = False
    network = Predictor(small_classifier(), replace)
    message = "must hold display colours" if value == 300 else "this removal reads hidden ones too"
    with pytest.raises(ValueError, match=message):
        evaluate(network, image, Coalitions(SEGMENTS, keep))
    with pytest.raises(ValueError, match=message):
        lmjax.Evaluator(network).images(
            image[None], keep[:, SEGMENTS], image_of=np.zeros(len(keep), int)
        )
    measured = Measured(network, objectives.margin(1))
    with pytest.raises(ValueError, match=message):
        evaluate(measured, image, Coalitions(SEGMENTS, keep))
    with pytest.raises(ValueError, match=message):
        evaluate(network, image, np.zeros((1, H, W), bool) | (SEGMENTS == 0))
    assert not Replace("grey_smooth").reads_hidden
    calibrated = lmjax.removals.calibrated(replace, np.eye(2), np.arange(2))
    assert calibrated.reads_hidden


def test_some_variants_may_hide_everything():
    masks = np.stack([np.ones((H, W)), np.zeros((H, W))])
    assert np.isfinite(evaluate(predictor(), IMAGE, masks)).all()


def test_images_may_be_tensors():
    torch = pytest.importorskip("torch")
    found = evaluate(predictor(), torch.tensor(IMAGE), MASKS)
    np.testing.assert_array_equal(found, evaluate(predictor(), IMAGE, MASKS))
    with pytest.raises(ValueError, match="image must hold floats in"):
        evaluate(predictor(), torch.zeros(IMAGE.shape, dtype=torch.uint8), MASKS)

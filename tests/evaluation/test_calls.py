"""Calls in several threads of a CPU: the same bits and order, under the settings of the caller."""

import threading
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lmjax
from lmjax._utils.bounded import bounded_jit
from lmjax.evaluation import calls, jobs, plan
from lmjax.evaluation.calls import Call
from tests.evaluation.test_engines import IMAGE, random_masks, random_predictor
from tests.support import compilations

MASKS = np.random.default_rng(0).random((60, 8, 8)) < 0.5
SMALL = np.random.default_rng(1).random((8, 8, 3)).astype(np.float32)


def threaded(monkeypatch, number):
    monkeypatch.setattr(jobs, "threads_of", lambda mesh: number)


class Stub:
    """A function whose program takes two threads at a time, and waits for a second one."""

    def __init__(self, wait):
        self.wait, self.threads = wait, []

    def key(self, args, options):
        return self

    def compiled(self, x):
        def program(x):
            self.threads.append(threading.get_ident())
            self.wait(x)
            return 10 * x

        return jax.jit(lambda x: x).trace(x), program

    def __call__(self, x):
        self.threads.append(threading.get_ident())
        return 10 * x


def test_results_come_in_order_from_several_threads():
    barrier = threading.Barrier(2, timeout=60)

    def wait(x):
        barrier.wait()  # two at a time, or an error
        time.sleep(0.01 if x[0] % 2 else 0)

    stub = Stub(wait)
    made = (Call(np.array([i]), stub, (np.array([i]),), {}) for i in range(9))
    found = list(calls.results(made, threads=2))
    assert [(v.item(), x.item()) for v, x in found] == [(i, 10 * i) for i in range(9)]
    first, *others = stub.threads
    assert first == threading.get_ident()
    assert len(set(others)) == 2
    assert first not in others


def test_no_more_run_at_a_time_than_are_asked_for():
    running, most = [], []

    def note(x):
        running.append(1)
        most.append(len(running))
        time.sleep(0.02)
        running.pop()

    class Slow(Stub):
        def __call__(self, x):
            return Later(note, x)

    class Later:
        def __init__(self, note, x):
            self.note, self.x = note, x

        def __array__(self, dtype=None, copy=None):
            self.note(self.x)
            return 10 * self.x

    stub = Slow(note)
    made = (Call(np.array([i]), stub, (np.array([i]),), {}) for i in range(9))
    assert [x.item() for _, x in calls.results(made, threads=2)] == [10 * i for i in range(9)]
    assert max(most) == 2


def noted(function):
    """Nine calls of a function, and the numbers of those that have been made."""
    taken = []

    def made():
        for i in range(9):
            taken.append(i)
            yield Call(np.array([i]), function, (jnp.full(1, i),), {})

    return made(), taken


def test_what_runs_alone_is_one_call_ahead():
    made, taken = noted(_asks_the_host)
    found = calls.results(made, threads=2)
    assert [(next(found)[1].item(), len(taken)) for _ in range(3)] == [(0, 2), (1, 3), (2, 4)]


def test_a_program_is_compiled_once_whoever_asks_first():
    function, x = bounded_jit()(lambda x: x * 3 + 1), jnp.arange(5.0)
    with compilations.counted() as compiled:
        function.compiled(x)[1](x)
        function(x)
    assert len(compiled) == 1
    y = jnp.arange(7.0)
    with compilations.counted() as compiled:
        function(y)
        function.compiled(y)[1](y)
    assert len(compiled) == 1


def test_no_more_calls_are_made_than_are_computed():
    made, taken = noted(Stub(lambda x: None))
    found = calls.results(made, threads=2)
    assert not taken
    next(found)
    assert taken == [0, 1, 2]
    found.close()
    assert taken == [0, 1, 2]


def test_an_error_of_a_thread_is_raised_and_ends_all():
    def fail(x):
        if x[0] == 3:
            raise RuntimeError("no memory for 3")

    made = (Call(np.array([i]), Stub(fail), (np.array([i]),), {}) for i in range(100))
    before = set(threading.enumerate())
    with pytest.raises(RuntimeError, match="no memory for 3"):
        list(calls.results(made, threads=2))
    for thread in set(threading.enumerate()) - before:
        thread.join(60)
        assert not thread.is_alive()


@pytest.mark.parametrize("engine", ["dense", "visible", "shared"])
def test_bits_are_those_of_one_thread(engine, monkeypatch):
    predictor, masks = random_predictor("bottleneck", lmjax.LayerMasking()), random_masks(70)
    monkeypatch.setattr(plan, "_MOST_SHARING", 32)
    found = []
    for number in (1, 2, 3):
        threaded(monkeypatch, number)
        found.append(lmjax.evaluate(predictor, IMAGE, masks, engine=engine, batch_size=4))
    np.testing.assert_array_equal(found[0], found[1])
    np.testing.assert_array_equal(found[0], found[2])


def test_threads_compile_for_the_settings_of_the_caller(monkeypatch):
    threaded(monkeypatch, 2)

    def bytes_of_a_float(image, masks):
        size = jnp.zeros((), float).dtype.itemsize
        return jnp.full((len(masks), 1), size, jnp.float32) + 0 * masks.sum((1, 2))[:, None]

    options = {"batch_size": 1, "progress": False}
    masks = np.ones((500, 100, 100), bool)  # three calls
    image = np.zeros((100, 100, 3), np.float32)
    with jax.enable_x64(True):
        assert (lmjax.evaluate(bytes_of_a_float, image, masks, **options) == 8).all()
    assert (lmjax.evaluate(bytes_of_a_float, image, masks, **options) == 4).all()


@bounded_jit()
def _asks_the_host(x):
    return jax.pure_callback(lambda x: np.asarray(x), jax.ShapeDtypeStruct(x.shape, x.dtype), x)


@bounded_jit()
def _solves(x):
    return jnp.linalg.solve(x, x)


@bounded_jit()
def _adds(x):
    return x + x


@bounded_jit()
def _prints(x):
    jax.debug.print("{}", x[0, 0], ordered=True)
    return x


@pytest.mark.parametrize(
    ("function", "runs"), [(_asks_the_host, 0), (_solves, 0), (_prints, 0), (_adds, 1)]
)
def test_programs_that_wait_for_others_run_alone(function, runs):
    known = {}
    x = jnp.eye(3)
    program = calls._program(Call(np.arange(3), function, (x,), {}), known)
    assert (program is not None) == runs
    assert len(known) == 1
    if program is not None:
        np.testing.assert_array_equal(program(x), function(x))


def test_black_boxes_are_asked_by_one_thread(monkeypatch):
    threaded(monkeypatch, 2)
    asked = []

    def function(images):
        asked.append(len(images))
        time.sleep(0.001)
        assert asked.pop() == len(images)  # no other came between
        return images.mean(axis=(1, 2))

    predictor = lmjax.Predictor(lmjax.black_box(function), "black")
    found = lmjax.evaluate(predictor, SMALL, MASKS, batch_size=2)
    expected = np.where(MASKS[..., None], SMALL, 0).mean(axis=(1, 2))
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_accelerators_and_several_devices_take_one_call_after_the_other(monkeypatch):
    mesh = jax.sharding.Mesh(np.array(jax.devices()[:1]), ("x",))
    for cores, expected in ((1, 1), (2, 2), (64, 2)):
        monkeypatch.setattr(calls, "usable_cores", lambda cores=cores: cores)
        assert calls.threads_of(mesh) == expected

    class Device:
        platform = "gpu"

    class Other:
        size, devices = 1, np.array([Device()])

    assert calls.threads_of(Other()) == 1
    Other.size, Device.platform = 2, "cpu"
    assert calls.threads_of(Other()) == 1


def test_jax_may_look_at_each_operation():
    predictor = random_predictor("basic", lmjax.LayerMasking())
    expected = lmjax.evaluate(predictor, IMAGE, random_masks(9), batch_size=2)
    with jax.debug_nans(True):
        found = lmjax.evaluate(predictor, IMAGE, random_masks(9), batch_size=2)
    np.testing.assert_array_equal(found, expected)

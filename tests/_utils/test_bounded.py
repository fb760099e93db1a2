import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lmjax._utils import bounded, compiler_options
from lmjax._utils.bounded import BoundedJit, Kept
from tests.support.compilations import counted

COUNT_MAPS = bounded._count_maps


@pytest.fixture(autouse=True)
def _counted_maps(monkeypatch):
    """Other tests go without."""
    monkeypatch.setattr(bounded, "_count_maps", COUNT_MAPS)


def scaled(x, *, factor):
    return (factor * x).sum()


def sizes(function, numbers, factor=2):
    return [float(function(np.ones(n, np.float32), factor=factor)) for n in numbers]


def test_it_computes_what_jit_does_and_compiles_once_for_a_shape():
    function = BoundedJit(scaled, static_argnames="factor", kept=Kept())
    assert sizes(function, (3, 4, 3)) == [6, 8, 6]
    assert sizes(function, (3,), factor=5) == [15]
    with counted() as compiled:
        assert sizes(function, (3, 4)) == [6, 8]
    assert compiled == []
    assert function.num_programs() == 3


def test_the_programs_used_last_are_kept():
    function = BoundedJit(scaled, static_argnames="factor", kept=Kept(most_programs=3))
    sizes(function, (1, 2, 3, 1, 4))  # 2 goes
    assert function.num_programs() == 3
    with counted() as compiled:
        assert sizes(function, (1, 3, 4)) == [2, 6, 8]
    assert compiled == []
    with counted() as compiled:
        assert sizes(function, (2,)) == [4]
    assert len(compiled) == 1


def test_functions_share_the_bound():
    kept = Kept(most_programs=4)
    functions = [BoundedJit(scaled, static_argnames="factor", kept=kept) for _ in range(2)]
    for function in functions:
        sizes(function, (1, 2, 3))
    assert [function.num_programs() for function in functions] == [1, 3]
    functions[1].clear_cache()
    assert [function.num_programs() for function in functions] == [1, 0]


def test_programs_go_when_their_memory_maps_are_many(monkeypatch):
    """Each of these would take 40 maps."""
    taken = iter(range(0, 10**6, 40))
    monkeypatch.setattr(bounded, "_count_maps", lambda: next(taken))
    function = BoundedJit(scaled, static_argnames="factor", kept=Kept(most_maps=100))
    sizes(function, (1, 2, 3, 4))
    assert function.num_programs() == 2
    monkeypatch.setattr(bounded, "_count_maps", lambda: 1000 * next(taken))
    sizes(function, (5,))  # one that is larger than the bound stays alone
    assert function.num_programs() == 1


@pytest.mark.skipif(not bounded._MAPS.exists(), reason="counts memory maps of Linux")
def test_what_goes_gives_its_memory_maps_back():
    @jax.jit
    def never_dropped(x):
        return jnp.sort(x)

    function = BoundedJit(lambda x: jnp.sort(jnp.tanh(x @ x)), kept=Kept(most_programs=2))
    never_dropped(np.ones(3))
    for n in range(3, 6):
        function(np.ones((n, n)))
    before = bounded._count_maps()
    assert before
    for n in range(6, 26):
        function(np.ones((n, n)))
    assert bounded._count_maps() - before < 20  # a program has about ten


def test_shapes_lowering_and_derivatives_are_those_of_jit():
    function = BoundedJit(scaled, static_argnames="factor", kept=Kept())
    assert function.eval_shape(np.ones(3, np.float32), factor=2).shape == ()
    assert "scaled" in function.lower(np.ones(3, np.float32), factor=2).as_text()
    slope = jax.jit(jax.vmap(jax.grad(lambda x: function(x, factor=3))))
    np.testing.assert_array_equal(slope(np.ones((2, 4))), np.full((2, 4), 3))
    assert function.__name__ == "scaled"


def test_other_types_of_one_shape_are_not_mixed():
    function = BoundedJit(scaled, static_argnames="factor", kept=Kept())
    assert function(np.ones(3, np.int32), factor=2).dtype == jnp.int32
    assert function(np.ones(3, np.float32), factor=2).dtype == jnp.float32


def test_threads_may_drop_what_others_run():
    function = BoundedJit(scaled, static_argnames="factor", kept=Kept(most_programs=1))
    found = {}

    def run(factor):
        found[factor] = [sizes(function, (n,), factor)[0] for n in (1, 2, 3) * 3]

    threads = [threading.Thread(target=run, args=(factor,)) for factor in (2, 3, 4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {factor: [factor * n for n in (1, 2, 3) * 3] for factor in (2, 3, 4)}


def test_a_call_alone_is_the_same_function_within_a_trace_too():
    function = BoundedJit(scaled, static_argnames="factor", kept=Kept())
    ones = np.ones(3, np.float32)

    def alone(x):
        return function.alone(x, factor=2)

    assert alone(ones) == function(ones, factor=2) == 6
    assert jax.jit(alone)(ones) == 6
    assert jax.jit(lambda: alone(ones))() == 6
    np.testing.assert_array_equal(jax.vmap(alone)(np.ones((2, 3), np.float32)), [6, 6])
    np.testing.assert_array_equal(jax.grad(alone)(ones), [2, 2, 2])
    np.testing.assert_array_equal(jax.vmap(lambda x: alone(ones) + x)(np.zeros(2)), [6, 6])


def test_what_fails_is_not_kept():
    kept = Kept()
    function = BoundedJit(lambda x: jnp.zeros(2) + x, kept=kept)
    for call in (function, function.alone):
        with pytest.raises(TypeError):
            call(np.ones(3))
    assert not kept.of(function)


def test_options_are_known_where_jit_is_disabled(monkeypatch):
    monkeypatch.setattr(compiler_options, "_known", compiler_options._known.__wrapped__)
    found = compiler_options.for_one_call()
    with jax.disable_jit():
        assert compiler_options.for_one_call() == found


def test_options_that_xla_does_not_know_are_left_out(monkeypatch):
    monkeypatch.setattr(compiler_options, "_ON_CPU", {"xla_cpu_of_another_version": True})
    monkeypatch.setattr(compiler_options, "_known", compiler_options._known.__wrapped__)
    assert compiler_options.for_one_call() is None
    function = BoundedJit(scaled, static_argnames="factor", kept=Kept())
    assert function.alone(np.ones(3, np.float32), factor=2) == 6

"""Time for tracing and compiling."""

import time

import jax
import jax.numpy as jnp

from lmjax._utils.compiling import compiling, covered


def test_what_is_nested_or_overlaps_counts_once():
    assert covered([]) == 0
    assert covered([(0, 10), (2, 3), (4, 9), (12, 13)]) == 11
    assert covered([(5, 7), (0, 6)]) == 7


def test_compiling_is_a_part_of_the_time():
    @jax.jit
    def inner(x):
        return jnp.sin(x) * 2

    start = time.perf_counter()
    with compiling() as compiled:
        run = jax.jit(lambda x: inner(x) + inner(x * 3))
        run(jnp.ones(7)).block_until_ready()
        first = compiled()
        run(jnp.ones(7)).block_until_ready()
        assert compiled() == first
    assert 0 < first < time.perf_counter() - start
    assert compiled() == first
    jax.jit(lambda x: x - 5)(1.0)
    assert compiled() == first

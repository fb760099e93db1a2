"""Fingerprints of functions and classes."""

import functools
import subprocess
import sys
import types

import jax
import pytest

from lmjax._utils.code import fingerprint, is_own

HELPERS = """
def shift(x): return x + 5
def unused(x): return x + 6
"""
SOURCE = """
import dataclasses
import functools
import jax
import numpy as np
import helpers

SIGMA = 2.0
TABLE = np.arange(3)
CACHE = {}

def inner(x):
    return x + 1

@dataclasses.dataclass(frozen=True)
class Power:
    exponent: int
    def __call__(self, x): return inner(x) ** self.exponent

class Fill:
    factor = 3
    def __init__(self, power): self.power = power
    def __call__(self, x): return self.power(x) * self.factor

FILL = Fill(Power(7))

def close(value):
    return lambda x: x + value

eight = close(8)
shifted = functools.partial(inner, 9)

@jax.jit
def function(x, bias=10, *, scale=11):
    CACHE[x] = True
    return FILL(x) * SIGMA + TABLE + helpers.shift(x) + (lambda y: y - 4)(x) + eight(x) + shifted(x)

class Network:
    def apply(self, images):
        return inner(images)
"""


def module(source=SOURCE, helpers=HELPERS):
    found = types.ModuleType("helpers")
    exec(helpers, vars(found))
    own = types.ModuleType("own")
    before = sys.modules.get("helpers"), sys.modules.get("own")
    try:
        sys.modules |= {"helpers": found, "own": own}
        exec(compile(source, "own.py", "exec"), vars(own))
    finally:
        for name, value in zip(("helpers", "own"), before):
            sys.modules.pop(name) if value is None else sys.modules.update({name: value})
    return own


def changed(old, new):
    """The fingerprint of the function with some of the source replaced."""
    return fingerprint(module(SOURCE.replace(old, new), HELPERS.replace(old, new)).function)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("SIGMA = 2.0", "SIGMA = 3.0"),
        ("arange(3)", "arange(4)"),
        ("return x + 1", "return x - 1"),
        ("factor = 3", "factor = 4"),
        ("y - 4", "y - 5"),
        ("return x + 5", "return x + 6"),
        ("Power(7)", "Power(8)"),
        ("close(8)", "close(9)"),
        ("partial(inner, 9)", "partial(inner, 10)"),
        ("bias=10", "bias=11"),
        ("scale=11", "scale=12"),
        ("** self.exponent", "** -self.exponent"),
    ],
)
def test_a_change_anywhere_is_another_fingerprint(old, new):
    assert changed(old, new) != fingerprint(module().function)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("import jax\n", "import jax  # the library\n\n"),
        ("return x + 6", "return x + 7"),
        ("CACHE = {}", "CACHE = {1: True}"),
        ("return inner(images)", "return -inner(images)"),
    ],
)
def test_comments_caches_and_what_is_not_used_are_no_change(old, new):
    assert changed(old, new) == fingerprint(module().function)


def test_classes_are_their_methods_and_what_these_use():
    found = fingerprint(module().Network)
    assert fingerprint(module(SOURCE.replace("inner(images)", "-inner(images)")).Network) != found
    assert fingerprint(module(SOURCE.replace("return x + 1", "return x + 2")).Network) != found
    assert fingerprint(module(SOURCE.replace("factor = 3", "factor = 4")).Network) == found


def test_another_process_finds_the_same():
    code = "from tests._utils import test_code; print(test_code.fingerprint(test_code.FUNCTION))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == fingerprint(FUNCTION)


FUNCTION = functools.partial(module().function, frozenset(["ab", "cd", "ef"]), jax.random.key(0))


def test_what_is_installed_is_not_the_users():
    import lmjax

    assert is_own(module)
    assert is_own(module().Network)
    for value in (jax, jax.jit, functools.partial, int, lmjax.evaluate, lmjax.Fill, types):
        assert not is_own(value), value


def test_recursion_ends():
    def even(n):
        return n == 0 or odd(n - 1)

    def odd(n):
        return n != 0 and even(n - 1)

    assert fingerprint(even) != fingerprint(odd)

"""The persistent compilation cache: on in commands, off in the library, harmless where broken."""

import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lmjax.cli.compilation_cache import compilation_cache

ROOT = Path(__file__).parents[2]
LMJAX = [sys.executable, "-m", "tests.support.small_command", "."]
OPTIONS = (
    *("explain", "--model", "resnet18_digits", "--num-samples", "8"),
    *("--removal", "black"),
)


def entries(cache) -> dict[str, int]:
    """Compiled programs, and when each was written."""
    files = (cache / "compilation").glob("*-cache")
    return {file.name: file.stat().st_mtime_ns for file in files}


def explain(folder, cache):
    folder.mkdir()
    environment = os.environ | {"LMJAX_CACHE": str(cache), "PYTHONPATH": str(ROOT)}
    environment.pop("LMJAX_COMPILATION_CACHE", None)
    done = subprocess.run(
        [*LMJAX, *OPTIONS], capture_output=True, text=True, cwd=folder, env=environment
    )
    assert done.returncode == 0, done.stderr
    return done


def test_a_command_finds_the_programs_of_another_again(tmp_path):
    done = explain(tmp_path / "first", tmp_path / "cache")
    assert "black" in done.stdout
    assert done.stdout.endswith("wrote explanation.json\n")
    (warning,) = done.stderr.splitlines()
    assert warning.startswith("lmjax: warning: 8 samples")
    names = ["explanation.json", "explanation.npz", "explanation.png"]
    assert sorted(path.name for path in (tmp_path / "first").glob("explanation.*")) == names
    before = entries(tmp_path / "cache")
    assert len(before) >= 5
    # Programs go by what they compute, wherever the cache and the working directory are.
    (tmp_path / "cache").rename(tmp_path / "moved")
    assert explain(tmp_path / "second", tmp_path / "moved").stderr == done.stderr
    assert entries(tmp_path / "moved") == before
    first, second = (np.load(tmp_path / each / names[1]) for each in ("first", "second"))
    for name in first:
        np.testing.assert_array_equal(first[name], second[name], err_msg=name)


@pytest.fixture
def on(tmp_path, monkeypatch):
    """The folder of a cache that is not turned off."""
    monkeypatch.delenv("LMJAX_COMPILATION_CACHE")
    monkeypatch.setenv("LMJAX_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def compile_one():
    """Compiles a program that no other test compiles, each time anew: the function is another."""
    return jax.jit(lambda x: jnp.tanh(x) * 3 + 1)(jnp.arange(7.0))


def test_within_the_context_alone(on):
    with compilation_cache():
        compile_one()
    before = entries(on)
    assert before
    assert jax.config.jax_compilation_cache_dir is None
    jax.jit(lambda x: jnp.sin(x) / 5)(jnp.arange(3.0))
    assert entries(on) == before


def test_programs_are_found_again(on):
    with compilation_cache():
        expected = compile_one()
        before = entries(on)
        np.testing.assert_array_equal(compile_one(), expected)
    assert entries(on) == before


def test_a_variable_turns_it_off(on, monkeypatch):
    monkeypatch.setenv("LMJAX_COMPILATION_CACHE", "0")
    with compilation_cache():
        compile_one()
    assert not on.exists()


def test_a_cache_of_ones_own_stays(on, tmp_path):
    jax.config.update("jax_compilation_cache_dir", str(tmp_path / "own"))
    try:
        with compilation_cache():
            assert jax.config.jax_compilation_cache_dir == str(tmp_path / "own")
    finally:
        jax.config.update("jax_compilation_cache_dir", None)
    assert not on.exists()


def test_a_folder_that_cannot_be_written_is_a_warning(on):
    on.write_text("a file in the place of the folder")
    message = "compiled programs are not kept: .* cannot be written"
    with pytest.warns(UserWarning, match=message) as warned, compilation_cache():
        compile_one()
    assert len(warned) == 1


def test_damaged_programs_are_compiled_again(on):
    with compilation_cache():
        expected = compile_one()
    for name in entries(on):
        (on / "compilation" / name).write_bytes(b"damaged")
    with compilation_cache():  # a warning would be an error
        np.testing.assert_array_equal(compile_one(), expected)

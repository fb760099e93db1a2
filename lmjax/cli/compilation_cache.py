"""The persistent compilation cache of JAX, which commands share."""

import contextlib
import os
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path

VARIABLE = "LMJAX_COMPILATION_CACHE"


@contextlib.contextmanager
def compilation_cache() -> Iterator[None]:
    """Keeps compiled programs under `$LMJAX_CACHE/compilation`, within the context.

    `LMJAX_COMPILATION_CACHE=0` turns it off. A cache that is configured already, as by
    `JAX_COMPILATION_CACHE_DIR`, stays as it is. Where the folder cannot be written, a warning says
    so and programs are compiled as without a cache.
    """
    import jax
    from jax.experimental.compilation_cache.compilation_cache import reset_cache

    folder = None if jax.config.values["jax_compilation_cache_dir"] else _folder()
    if folder is None:
        yield
        return
    settings = {
        "jax_compilation_cache_dir": str(folder),
        # Explanations compile many small programs, whose seconds add up.
        "jax_persistent_cache_min_compile_time_secs": 0.0,
        # XLA's own caches would make the keys of programs depend on the folder.
        "jax_persistent_cache_enable_xla_caches": "none",
    }
    before = {name: getattr(jax.config, name) for name in settings}
    try:
        _configure(settings)
        with warnings.catch_warnings():
            # Damaged entries are compiled again.
            warnings.filterwarnings("ignore", "Error (reading|writing) persistent compilation")
            yield
    finally:
        _configure(before)
        reset_cache()


def _configure(settings: dict) -> None:
    import jax

    for name, value in settings.items():
        jax.config.update(name, value)


def _folder() -> Path | None:
    """Returns the folder, once it is known to be writable; None where there is to be no cache."""
    from lmjax.models.download import cache_dir

    if os.environ.get(VARIABLE) == "0":
        return None
    folder = cache_dir() / "compilation"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return folder
    except OSError as error:
        warnings.warn(
            f"compiled programs are not kept: {folder} cannot be written ({error.strerror}); "
            f"LMJAX_CACHE names another folder, {VARIABLE}=0 keeps none",
            stacklevel=3,
        )
        return None

"""Settings of the whole suite: silent broadcasting across ranks is an error, as are warnings."""

import gc
import os
from pathlib import Path

# Workers share the cores: threads of NumPy and torch would wait for each other, and that busily.
# Both read this when they are loaded.
os.environ |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}

import jax
import pytest

from lmjax._utils import bounded
from tests.support import compilations, small_digits, wordnet_database


def pytest_configure():
    compilations.compile_quickly()


def pytest_collection_finish():
    _freeze()
    gc.set_threshold(30_000)


def _freeze():
    """Keeps the garbage collector off all there is: modules and programs are millions of objects.

    JAX's checker of leaks collects for every trace: tests of it took six times as long without.
    """
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True, scope="session")
def _strict_jax():
    jax.config.update("jax_numpy_rank_promotion", "raise")
    # Else each error has JAX's frames taken out one by one, by looking at files: 5 ms.
    jax.config.update("jax_traceback_filtering", "off")
    jax.devices()  # JAX runs, on one device: studies in this process do not divide the CPU


@pytest.fixture(autouse=True, scope="session")
def _uncounted_maps():
    """Functions do not count the memory maps of new programs: it takes as long as compiling them.

    A count lists all maps, and a process of the suite has a hundred times those of a command.
    `_few_memory_maps` keeps the bound here; that functions keep it is in _utils/test_bounded.py.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bounded, "_count_maps", lambda: 0)
        yield


@pytest.fixture(autouse=True, scope="session")
def _no_compilation_cache():
    """Commands keep no compiled programs, in this process and in those that tests start."""
    os.environ["LMJAX_COMPILATION_CACHE"] = "0"


@pytest.fixture(autouse=True, scope="module")
def _few_memory_maps():
    """Forgets compiled programs when they are many.

    Each has about ten maps of memory. Linux grants a process 65,530, which those of the whole suite
    exceed; XLA crashes then.
    """
    yield
    maps = Path("/proc/self/maps")
    if maps.exists() and maps.read_bytes().count(b"\n") > 30_000:
        jax.clear_caches()
        gc.unfreeze()
    _freeze()


@pytest.fixture(scope="module")
def small_network(tmp_path_factory):
    """The network that comes with lmjax is `small_digits`, for a whole module."""
    with pytest.MonkeyPatch.context() as patch:
        small_digits.replace(patch, tmp_path_factory.mktemp("network"))
        yield


@pytest.fixture
def little_wordnet(tmp_path, monkeypatch):
    """NLTK's WordNet is that of `wordnet_database.PETS`; ids of its synsets by word."""
    nltk = pytest.importorskip("nltk")
    from nltk.corpus import CorpusReader, LazyCorpusLoader, WordNetCorpusReader

    ids = wordnet_database.write(tmp_path / "nltk", wordnet_database.PETS)
    monkeypatch.setattr(nltk.data, "path", [str(tmp_path / "nltk")])
    other_languages = LazyCorpusLoader("omw", CorpusReader, r".*/wn-data-.*\.tab")
    loader = LazyCorpusLoader("wordnet", WordNetCorpusReader, other_languages)
    monkeypatch.setattr(nltk.corpus, "wordnet", loader)
    yield ids
    for file in vars(loader).get("_data_file_map", {}).values():  # NLTK leaves them open
        file.close()

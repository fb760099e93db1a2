"""Small runs of `benchmarks.tasks` and `benchmarks.memory`."""

import numpy as np
import pytest

from benchmarks import memory, tasks
from benchmarks.harness import Usage
from tests.support import small_digits


def test_both_engines_have_both_caches_in_turn(monkeypatch):
    """Seconds are made up: 8 and 4 with a cold cache, 3 and 2 with a warm one."""
    runs, caches = [], {}

    def run_alone(task, engine, sizes, *, environment, cores):
        cache = environment["JAX_COMPILATION_CACHE_DIR"]
        warm = caches.get(cache, False)
        caches[cache] = True
        runs.append((engine, warm))
        wall = {"dense": (8.0, 3.0), "auto": (4.0, 2.0)}[engine][warm]
        return Usage(wall, 2 * wall)

    def forget(folder, ignore_errors):
        caches[folder] = False

    monkeypatch.setattr(tasks, "run_alone", run_alone)
    monkeypatch.setattr(tasks.shutil, "rmtree", forget)
    monkeypatch.setattr(tasks.tempfile, "TemporaryDirectory", FakeFolder)
    cold, warm = tasks.compare_engines("LIME", tasks.Sizes(), rounds=2, cores=2)
    assert runs == 2 * [("dense", False), ("auto", False), ("dense", True), ("auto", True)]
    assert (cold["cache"], cold["dense, s"], cold["auto, s"]) == ("cold", 8.0, 4.0)
    assert str(cold["dense / auto"]) == "2.00 (2.00 to 2.00)"
    assert (warm["cache"], warm["dense, CPU s"], warm["auto, CPU s"]) == ("warm", 6.0, 4.0)
    assert str(warm["dense / auto, CPU"]) == "1.50 (1.50 to 1.50)"


class FakeFolder:
    def __enter__(self):
        return "folder"

    def __exit__(self, *error):
        pass


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:8 samples for")
def test_studies_and_lime_run_by_either_engine():
    sizes = tasks.Sizes("resnet18", scenes=1, photographs=1, samples=8)
    for run in (tasks.study_of_scenes, tasks.lime):
        for engine in tasks.SIDES:
            assert run(engine, sizes).wall > 0


@pytest.mark.slow
def test_attributions_are_measured_without_the_network(capsys):
    tasks.overhead(model="resnet18", variants=120, size=32, cells=3, network_variants=2, rounds=1)
    table = capsys.readouterr().out
    image, labels = np.zeros((32, 32, 3), np.float32), np.arange(1024).reshape(32, 32) // 114
    for name in tasks.methods(image, labels, 120):
        assert f"| {name} |" in table
    assert "| lime | 120 |" in table
    assert "| rise, soft masks | 121 |" in table


def test_interactions_are_measured_from_the_samples_of_three_methods(capsys):
    tasks.pairs(cells=(2, 4), samples=140, rounds=1)
    table = capsys.readouterr().out
    for row in ("kernelshap | STII", "kernelshap | Banzhaf", "lime | Banzhaf", "banzhaf | Banzhaf"):
        assert f"| {row} |" in table


@pytest.mark.filterwarnings("ignore:4 samples for")
def test_many_images_are_measured_against_the_network(capsys, tmp_path, monkeypatch):
    small_digits.replace(monkeypatch, tmp_path)
    tasks.images(count=2, samples=4, rounds=1)
    assert "| lime, all images in one call |" in capsys.readouterr().out


@pytest.mark.slow
def test_memory_of_a_process_of_its_own(capsys):
    memory.main(model="resnet18", size=32, variants=(4,), engines=("dense",))
    *_, row, _ = capsys.readouterr().out.splitlines()
    engine, variants, peak, before, seconds = row.strip("| ").split(" | ")
    assert (engine, variants) == ("dense", "4")
    assert 100 < int(before.replace(",", "")) < int(peak.replace(",", ""))
    assert float(seconds) > 0

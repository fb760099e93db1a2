"""The files of a release tell the same: version, changelog, citation, dependencies."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import lmjax

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
CHANGELOG = (ROOT / "CHANGELOG.md").read_text()
VERSIONS = re.findall(r"^## \[(.*?)\](?: - \d{4}-\d\d-\d\d)?$", CHANGELOG, re.M)
RELEASED = VERSIONS[1]
KINDS = ("Added", "Changed", "Deprecated", "Removed", "Fixed", "Security")


def parts(version):
    return tuple(map(int, version.split(".")))


def lower_bounds(*extras):
    project, found = PROJECT["project"], {}
    extra = [each for name in extras for each in project["optional-dependencies"][name]]
    for requirement in project["dependencies"] + extra:
        name, bound = re.fullmatch(r"([\w-]+)>=([\d.]+)(?:,<[\d.]+)?(?:;.*)?", requirement).groups()
        found[name] = bound
    return found


def test_the_version_stands_in_one_place():
    assert PROJECT["project"]["dynamic"] == ["version"]
    assert PROJECT["tool"]["hatch"]["version"]["path"] == "lmjax/__init__.py"


def test_after_a_release_the_version_is_that_of_the_next_in_development():
    """Studies and trainings go on with rows of the same version alone."""
    number, dev, _ = lmjax.__version__.partition(".dev")
    assert re.fullmatch(r"\d+\.\d+\.\d+", number)
    assert parts(number) > parts(RELEASED) if dev else number == RELEASED


def test_the_changelog_has_the_form_of_keep_a_changelog():
    assert len(VERSIONS) == len(re.findall(r"^## ", CHANGELOG, re.M))
    assert VERSIONS[0] == "Unreleased"
    assert VERSIONS[1:] == sorted(VERSIONS[1:], key=parts, reverse=True)
    for section in re.split(r"^## ", CHANGELOG, flags=re.M)[1:]:
        kinds = re.findall(r"^### (.*)", section, re.M)
        assert kinds == [kind for kind in KINDS if kind in kinds]


def test_the_citation_is_of_the_last_release():
    citation = (ROOT / "CITATION.cff").read_text()
    assert f"\nversion: {RELEASED}\n" in citation
    (released,) = re.findall(r"^date-released: (.*)", citation, re.M)
    assert f"[{RELEASED}] - {released}" in CHANGELOG
    assert f"version = {{{RELEASED}}}" in (ROOT / "README.md").read_text()


def test_the_oldest_versions_that_are_allowed_are_those_that_ci_runs():
    pinned = re.findall(r"^([\w-]+)==([\d.]+)$", (ROOT / ".ci/oldest.txt").read_text(), re.M)
    bounds = lower_bounds("lasso")
    assert {name for name, _ in pinned} - {"jaxlib"} <= bounds.keys()
    for name, version in pinned:
        wanted = bounds["jax" if name == "jaxlib" else name].split(".")
        assert version.split(".")[: len(wanted)] == wanted, name


def test_the_conda_recipe_asks_for_the_same():
    recipe = (ROOT / "conda/meta.yaml").read_text()
    assert f'set version = "{RELEASED}"' in recipe
    run = recipe.partition("  run:\n")[2].partition("\ntest:")[0]
    for name, bound in lower_bounds().items():
        assert re.search(rf"- {re.escape(name)} >={re.escape(bound)}(,<[\d.]+)?$", run, re.M), name


@pytest.mark.parametrize("path", sorted((ROOT / "lmjax").rglob("*.py")), ids=lambda p: p.stem)
def test_no_text_points_to_a_page_that_the_wheel_lacks(path):
    assert "docs/" not in path.read_text()


def test_what_explains_imports_nothing_of_studies_training_and_datasets():
    script = (
        "import sys, lmjax; lmjax.Evaluator; lmjax.models.load; lmjax.attribution.lime;"
        "lmjax.metrics.deletion; lmjax.segments.slic; lmjax.removals.make;"
        "print(*sorted({name.partition('.')[0] for name in sys.modules}))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    others = "tensorflow_datasets pyarrow orbax tensorstore chex sklearn skimage matplotlib tyro"
    assert not set(done.stdout.split()) & set(others.split())

"""Checks what a wheel and an sdist hold: `python .ci/check_distributions.py FOLDER`, in a clone."""

import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[1]


def tracked() -> set[str]:
    """Returns the files that git knows."""
    done = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return {name for name in done.stdout.split("\0") if name and (ROOT / name).is_file()}


def under(names: set[str], *places: str) -> set[str]:
    """Returns the names that are one of the places, or in it."""
    return {n for n in names if any(n == place or n.startswith(f"{place}/") for place in places)}


def compare(what: str, found: set[str], wanted: set[str]) -> list[str]:
    """Returns a line for each file that is missing or too many."""
    lacks = [f"{what} lacks {name}" for name in sorted(wanted - found)]
    return lacks + [f"{what} holds {name}" for name in sorted(found - wanted)]


def check_wheel(path: Path) -> list[str]:
    """Compares a wheel with the package's files in git: data and `py.typed` too, nothing else."""
    with zipfile.ZipFile(path) as wheel:
        names = {name for name in wheel.namelist() if not name.endswith("/")}
    package = {name for name in names if ".dist-info/" not in name}
    wrong = compare(path.name, package, under(tracked(), "lmjax"))
    licences = {name for name in names if name.endswith("licenses/LICENSE")}
    return wrong + ([] if licences else [f"{path.name} lacks the licence"])


def check_sdist(path: Path) -> list[str]:
    """Compares an sdist with what `pyproject.toml` says that it includes."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())
    places = settings["tool"]["hatch"]["build"]["targets"]["sdist"]["include"]
    with tarfile.open(path) as sdist:
        files = [member.name for member in sdist.getmembers() if member.isfile()]
    names = {name.partition("/")[2] for name in files}
    wanted = under(tracked(), *(place.strip("/") for place in places))
    return compare(path.name, names - {"PKG-INFO", ".gitignore"}, wanted | {"pyproject.toml"})


def main(folder: str) -> None:
    """Checks the one wheel and the one sdist of a folder."""
    (wheel,), (sdist,) = Path(folder).glob("*.whl"), Path(folder).glob("*.tar.gz")
    wrong = check_wheel(wheel) + check_sdist(sdist)
    if wrong:
        sys.exit("\n".join(wrong))
    print(f"{wheel.name} and {sdist.name} hold what they should")


if __name__ == "__main__":
    main(*sys.argv[1:])

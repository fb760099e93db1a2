"""Removals by name, as commands, studies and training call them."""

import dataclasses
import hashlib
import inspect
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np

from lmjax._utils.keys import check_key
from lmjax._utils.registry import Registry
from lmjax._utils.summary import brief
from lmjax.removals import libraries, visible
from lmjax.removals.fill import Fill
from lmjax.removals.masking import (
    LayerMasking,
    Masking,
    PartialConvolution,
    TokenDropping,
    check_masking,
)
from lmjax.removals.removal import Where, declared
from lmjax.removals.replace import BASELINES, Replace, canonical_spelling
from lmjax.removals.samples import Samples, read_images

REGISTRY: Registry[Callable] = Registry("removal", "lmjax.removals")

OWN = "masking"
"""The network's own masking: layer masking, or token dropping in a transformer."""

_NEED_FILE = ("calibrated",)

_TITLES = {
    "layer": "layer masking",
    "no_padding": "masking without padding",
    "partial": "partial convolution",
    OWN: "own masking",
    "telea": "Telea's inpainting",
    "navier_stokes": "Navier-Stokes inpainting",
}

# Stand-ins, for reading off a removal what it declares. NumPy: no device is needed.
_ANY_KEY = np.zeros(2, np.uint32)
_ANY_SEGMENTS = np.zeros((1, 1), int)


def register(name: str, make: Callable, *, description: str) -> None:
    """Gives a removal a name, for commands, studies, training and `lmjax.Predictor`.

    Other packages can do so by an entry point of the group `lmjax.removals`; its object is `make`.

    Example:
      >>> make = lambda: lmjax.Replace((0.4, 0.3, 0.2))
      >>> lmjax.removals.register("sepia", make, description="a warm brown")
      >>> predictor = lmjax.Predictor(classifier, "sepia")

    Args:
      name: a word; not that of a removal that comes with lmjax.
      make: function that makes the removal, an `lmjax.Removal`. Parameters called `key` and
        `segments` are given a random key and the label map `[H, W]`; it has no others without a
        default. One called `file` is given the path in `name@PATH`. A removal whose class is a
        dataclass with a field `depth` also goes by `name@2`.
      description: one line.

    Raises:
      ValueError: a name that is taken or cannot be written on a command line; not a function.
    """
    if not callable(make) or _needed(make) - {"key", "segments"}:
        raise ValueError(
            "make must be a function that makes the removal, without parameters or with key=, "
            "segments= and, with a default, file=, such as lambda: lmjax.Replace(image); got "
            f"{brief(make)}"
        )
    REGISTRY.register(canonical_spelling(name), make, description=description)


def names() -> tuple[str, ...]:
    """Returns the names of all removals that need no file, without depths."""
    return tuple(name for name in REGISTRY.names() if name not in _NEED_FILE)


def description(name: str) -> str:
    """Returns the line that describes a removal."""
    return REGISTRY.description(check_name(name)[0])


def title(name: str) -> str:
    """Returns the name of a removal as figures and tables show it."""
    base, _, setting = canonical_spelling(name).partition("@")
    shown = _TITLES.get(base, base.replace("_", " "))
    if not setting:
        return shown
    return f"{shown} ({Path(setting).stem})" if takes_file(base) else f"{shown}, depth {setting}"


def make(name: str, *, key: jax.Array | np.ndarray | None = None, segments: Any = None) -> Any:
    """Makes a removal by its name.

    Args:
      name: one of `names()`, `"gray"` for `"grey"`; with a depth where the removal has one:
        `"layer@2"` is `lmjax.LayerMasking(depth=2)`; with a file where it takes one:
        `"calibrated@FILE"` (`lmjax data calibration`), `"samples@FILE"` (`lmjax data samples`).
      key: random key, for the removals that take one.
      segments: `[H, W]` ints, for the removals that take them.

    Returns:
      A removal, as `lmjax.Predictor` takes it; None, which is the classifier's own masking, for
      `"masking"`.

    Raises:
      ValueError: another name, or a key or segments that the removal needs and that are missing; a
        file that does not exist or holds something else.
    """
    base, setting = check_name(name)
    if key is not None:
        check_key(key)
    maker = REGISTRY.get(base)
    if key is None and "key" in _needed(maker):
        raise ValueError(
            f"removal {base!r} needs a random key: "
            f"lmjax.removals.make({base!r}, key=jax.random.key(seed))"
        )
    if segments is None and "segments" in _needed(maker):
        raise ValueError(
            f"removal {base!r} needs segments, a label map [H, W]: "
            f"lmjax.removals.make({base!r}, segments=segments)"
        )
    if setting is not None and takes_file(base) and not Path(str(setting)).is_file():
        raise ValueError(f"removal {name} cannot be made: there is no file {setting}")
    return made(maker, setting, key=key, segments=segments)


def made(maker: Callable, setting: int | str | None, *, key: Any, segments: Any) -> Any:
    """Calls the maker of a removal with those of its parameters that it takes.

    Args:
      maker: the registered function.
      setting: what follows the name: a depth, or a file; see `check_name`.
      key, segments: as in `make`.
    """
    given = {"key": key, "segments": segments}
    takes = inspect.signature(maker).parameters
    given = {option: value for option, value in given.items() if option in takes}
    if setting is None:
        return maker(**given)
    if "file" in takes:
        return maker(**given, file=setting)
    return dataclasses.replace(maker(**given), depth=setting)


def check_name(name: str, *, argument: str = "removal") -> tuple[str, int | str | None]:
    """Returns the name of a removal without its depth or file, and these.

    Args:
      name: as in `make`.
      argument: what the caller's argument is called, for the error.

    Returns:
      The name, and the depth or the path of the file, in which `~` stands for the home folder;
      None where there is neither.

    Raises:
      ValueError: another name, a depth for a removal that has none, or no file for one that needs
        one. Whether there is such a file is not checked.
    """
    base, at, depth = str(name).partition("@")
    base = REGISTRY.check(canonical_spelling(base), argument=argument)
    if takes_file(base):
        if not depth and (at or base in _NEED_FILE):
            raise ValueError(f"{argument} {base} needs a file, as in {base}@FILE")
        return base, os.path.expanduser(depth) or None
    is_name = depth[:1].isalpha() or depth[:1] == "_"
    if at and not ((depth.isdecimal() or is_name) and _has_depth(base)):
        examples = ", ".join(f"{each}@2" for each in names() if _has_depth(each))
        raise ValueError(
            f"{argument} must be one of {', '.join(names())}, or with a number of blocks to mask "
            f"(or the module where masking ends) one of {examples}; got {brief(name)}"
        )
    if not at:
        return base, None
    return base, int(depth) if depth.isdecimal() else depth


def canonical(name: str, *, argument: str = "removal") -> str:
    """Returns the spelling of a name that records hold, such as `"grey"` for `"gray"`.

    Args:
      name: as in `make`.
      argument: what the caller's argument is called, for the error.

    Raises:
      ValueError: as `check_name`.
    """
    base, setting = check_name(name, argument=argument)
    return base if setting is None else f"{base}@{setting}"


def needs_key(name: str) -> bool:
    """Returns whether a removal cannot be made without a random key."""
    return "key" in _needed(REGISTRY.get(check_name(name)[0]))


def needs_segments(name: str) -> bool:
    """Returns whether a removal cannot be made without segments."""
    return "segments" in _needed(REGISTRY.get(check_name(name)[0]))


def takes_file(name: str) -> bool:
    """Returns whether a removal's name may be followed by a file, as in `"samples@FILE"`."""
    base = canonical_spelling(str(name).partition("@")[0])
    return base in REGISTRY and "file" in inspect.signature(REGISTRY.get(base)).parameters


def file_sha256(name: str) -> str | None:
    """Returns the sha256 of the file in a removal's name; None without one, or where it is gone."""
    base, setting = check_name(name)
    if setting is None or not takes_file(base) or not Path(str(setting)).is_file():
        return None
    with open(setting, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def file_hashes(names: Iterable[str]) -> dict[str, str | None]:
    """Returns the sha256 of the files of those removals that are named with one."""
    with_file = (name for name in names if "@" in name and takes_file(name))
    return {name: file_sha256(name) for name in with_file}


def paints(name: str) -> bool:
    """Returns whether a removal changes the image, before any network sees it."""
    return _where(name) == "input"


def soft_masks(name: str) -> bool:
    """Returns whether a removal takes masks with values between 0 and 1."""
    removal = prototype(name)
    return removal is not None and declared(removal, "soft_masks")


def prototype(name: str) -> Any:
    """Makes a removal with a stand-in for its key and segments, to read off what it declares."""
    return make(name, key=_ANY_KEY, segments=_ANY_SEGMENTS)


def check_fits(name: str, own: Masking) -> None:
    """Raises ValueError for a removal that does not fit a network whose own masking is `own`.

    Args:
      name: as in `make`. Removals that paint fit every network, and so does `"masking"`.
      own: the network's masking.
    """
    check_masking(own, own)
    if _where(name) not in (None, "input", own.where):
        fitting = [each for each in names() if _where(each) == own.where]
        kind = "a transformer" if own.where == "tokens" else "a convolutional network"
        raise ValueError(
            f"removal {name} does not go through {kind}; take {', '.join(fitting)}, or one that "
            "paints, such as grey"
        )


def _where(name: str) -> Where | None:
    """Returns where a removal withholds features; None for the network's own."""
    removal = prototype(name)
    return None if removal is None else declared(removal, "where")


def _needed(maker: Callable) -> set[str]:
    """The parameters without a default."""
    named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    parameters = inspect.signature(maker).parameters.values()
    return {each.name for each in parameters if each.default is each.empty and each.kind in named}


def _has_depth(base: str) -> bool:
    removal = prototype(base)
    if not dataclasses.is_dataclass(removal):
        return False
    return "depth" in {field.name for field in dataclasses.fields(removal)}


def _baseline(name: str) -> Callable:
    needs = BASELINES[name].needs
    if needs == "key":
        return lambda *, key: Replace(name, key=key)
    if needs == "segments":
        return lambda *, segments: Replace(name, segments=segments)
    return lambda: Replace(name)


def _samples(*, key: Any, file: str | None = None) -> Samples:
    return Samples(None if file is None else read_images(file), key=key)


def _calibrated(*, file: str) -> Any:
    from lmjax.removals.calibration import read_calibrated  # which makes removals by name

    return read_calibrated(file)


_FILLS = (
    ("ring", lambda: Fill(visible.ring), "neighbor padding of the image, until nothing is hidden"),
    ("harmonic", lambda: Fill(visible.harmonic), "Laplace's equation on the hidden pixels"),
    (
        "noisy_linear",
        lambda *, key: Fill(visible.noisy_linear, key=key),
        "harmonic with a little noise, as ROAD imputes",
    ),
    (
        "histogram",
        lambda *, key: Fill(visible.histogram, key=key),
        "the colour of a random visible pixel for every hidden one",
    ),
    (
        "biharmonic",
        lambda: Fill(libraries.biharmonic),
        "the biharmonic equation on the hidden pixels, by scikit-image",
    ),
    ("telea", lambda: Fill(libraries.telea), "Telea's inpainting, by OpenCV"),
    (
        "navier_stokes",
        lambda: Fill(libraries.navier_stokes),
        "inpainting by fluid dynamics, by OpenCV",
    ),
)


def _builtin() -> Iterator[tuple[str, Callable, str]]:
    """Name, maker and description of each removal that comes with lmjax."""
    yield "layer", LayerMasking, "layer masking, with neighbor padding"
    yield "no_padding", lambda: LayerMasking(padding="none"), "layer masking without padding"
    yield "partial", PartialConvolution, "partial convolution"
    yield "token_dropping", TokenDropping, "token dropping, in a transformer"
    yield OWN, lambda: None, "the network's own: layer, or token_dropping in a transformer"
    for name, named in BASELINES.items():
        yield name, _baseline(name), named.description
    yield from _FILLS
    yield "samples", _samples, "pixels of other images, by default photographs; answers averaged"
    yield (
        "calibrated",
        _calibrated,
        "another removal's logits, mapped so that the predicted class is kept",
    )
    yield "red", lambda: Replace((1.0, 0.0, 0.0)), "red"
    yield "green", lambda: Replace((0.0, 1.0, 0.0)), "green"
    yield "blue", lambda: Replace((0.0, 0.0, 1.0)), "blue"


for _name, _maker, _description in _builtin():
    REGISTRY.register(_name, _maker, description=_description, builtin=True)

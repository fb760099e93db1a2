"""Sources by what is written for them on the command line."""

import importlib
import inspect
import os
import re
from collections.abc import Callable, Sequence

FORMS = (
    "digit-scenes[,split=SPLIT][,seed=N][,spurious=P][,cue=KIND]...",
    "folder:PATH[,masks=PATH][,saliency=PATH][,classes=FILE]",
    "csv:FILE[,classes=FILE]",
    "imagenet:PATH[,labels=FILE]",
    "salient-imagenet:PATH,images=PATH[,features=spurious]",
    "pixel-imagenet:PATH,images=PATH",
    "imagenet-s:PATH[,split=train-semi]",
    "part-imagenet:PATH[,split=train]",
    "tfds:NAME[SPLIT][,data_dir=PATH][,mask=FEATURE]...",
)
"""What sources look like."""

_SCENES = 500
_REVERSE = {None: None, "yes": True, "no": False}


def open_source(source: str, *, length: int | None = None) -> Sequence:
    """A source by what is written for it.

    Example:
      >>> open_source("digit-scenes,split=train,seed=3")
      >>> open_source("folder:val,masks=val-masks")
      >>> open_source("csv:pets.csv")
      >>> open_source("tfds:oxford_iiit_pet[test]")

    Args:
      source: its kind, a colon, where it is, and options of `DigitScenes`, `from_folder`,
        `from_csv`, `from_imagenet` and its like, or `from_tfds` as `,name=value`.
      length: of sources that have none of their own (digit scenes; 500 by default).

    Raises:
      ValueError: no such kind or option, or what the source itself refuses.
      OSError: it cannot be read.
    """
    head, *pairs = re.split(r",(?=[a-z_]+=)", source)
    kind, _, place = head.partition(":")
    if kind not in _KINDS:
        found = f"; for a folder of images, folder:{source}" if os.path.isdir(source) else ""
        raise ValueError(f"source must be one of {'; '.join(FORMS)}; got {source!r}{found}")
    if bool(place) != (kind != "digit-scenes"):
        raise ValueError(f"source {source!r} must be {_form(kind)}")
    options = dict(pair.split("=", 1) for pair in pairs)
    opener = _KINDS[kind]()
    parameters = tuple(inspect.signature(opener).parameters.values())
    allowed = [each.name for each in parameters if each.kind is each.KEYWORD_ONLY]
    for name in options:
        if name not in allowed:
            raise ValueError(
                f"source {source!r}: no option {name}; {kind} has {', '.join(allowed)}"
            )
    if any(each.default is each.empty and each.name not in options for each in parameters[1:]):
        raise ValueError(f"source {source!r} must be {_form(kind)}")
    if kind == "tfds":
        place, split = _without_split(place)
        options |= {} if split is None else {"split": split}
    # Shells leave a ~ alone that does not begin a word.
    options = {name: os.path.expanduser(text) for name, text in options.items()}
    return opener(length if kind == "digit-scenes" else os.path.expanduser(place), **options)


def _without_split(place: str) -> tuple[str, str | None]:
    """`NAME` and `SPLIT` of `NAME[SPLIT]`, both of which may have brackets."""
    if not place.endswith("]"):
        return place, None
    depth = 0
    for at in reversed(range(len(place))):
        depth += {"]": 1, "[": -1}.get(place[at], 0)
        if depth == 0:
            return place[:at], place[at + 1 : -1]
    raise ValueError(f"source tfds:{place} has a ] without its [; write tfds:NAME[SPLIT]")


def _form(kind: str) -> str:
    return next(form for form in FORMS if re.match("[a-z-]+", form)[0] == kind)


def _digit_scenes(
    length: int | None,
    *,
    split: str = "test",
    seed: str = "0",
    spurious: str | None = None,
    cue: str | None = None,
    reverse: str | None = None,
) -> Sequence:
    from lmjax.data.digits.scenes import DigitScenes

    if not seed.isdecimal():
        raise ValueError(f"seed must be a number from 0, got {seed!r}")
    if reverse not in _REVERSE:
        raise ValueError(f"reverse must be yes or no, got {reverse!r}")
    return DigitScenes(
        split,
        length=_SCENES if length is None else length,
        seed=int(seed),
        spurious=None if spurious is None else _probability(spurious),
        cue=cue,
        reverse=_REVERSE[reverse],
    )


def _probability(spurious: str) -> float:
    try:
        return float(spurious)
    except ValueError:
        raise ValueError(f"spurious must be a probability, 0..1, got {spurious!r}") from None


def _kind(module: str, name: str) -> Callable[[], Callable[..., Sequence]]:
    return lambda: getattr(importlib.import_module(f"lmjax.data.{module}"), name)


_KINDS = {
    "digit-scenes": lambda: _digit_scenes,
    "folder": _kind("files.folder", "from_folder"),
    "csv": _kind("files.table", "from_csv"),
    "imagenet": _kind("imagenet.validation", "from_imagenet"),
    "salient-imagenet": _kind("imagenet.salient", "from_salient_imagenet"),
    "pixel-imagenet": _kind("imagenet.masks", "from_pixel_imagenet"),
    "imagenet-s": _kind("imagenet.masks", "from_imagenet_s"),
    "part-imagenet": _kind("imagenet.masks", "from_part_imagenet"),
    "tfds": _kind("tfds.source", "from_tfds"),  # imports tensorflow-datasets, 2 seconds
}

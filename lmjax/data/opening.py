"""Sources by name: the registry of their kinds, and how they are written on the command line."""

import inspect
import os
import re
from collections.abc import Callable, Mapping
from typing import NamedTuple

from lmjax._utils.checks import check_function
from lmjax._utils.registry import Registry
from lmjax._utils.summary import brief
from lmjax.data.source import Source

Opener = Callable[..., Source]
_REGISTRY: Registry[Opener] = Registry("source", "lmjax.sources")
_FORMS: dict[str, str] = {}

_SCENES = 500
_TRAINING_SPLITS = {"imagenet-s": "train-semi"}  # "train" in all others
_REVERSE = {None: None, "yes": True, "no": False}


def register(name: str, opener: Opener, *, description: str, form: str | None = None) -> None:
    """Adds a kind of source, for `open_source` and the option `--source` of the commands.

    Example:
      >>> def from_zip(path, *, classes=None): ...
      >>> lmjax.data.register("zip", from_zip, description="Images in a zip archive.")
      >>> source = lmjax.data.open_source("zip:pets.zip,classes=classes.txt")

    Args:
      name: as users write it.
      opener: function that returns a `lmjax.data.Source`. Its positional parameter, where it has
        one, is given what follows the colon. Its keyword-only parameters are the options, given as
        text; one called `length` is how many examples to make, for sources without a length of
        their own.
      description: one line.
      form: how the source is written, for help texts and errors; None derives it from the
        signature.

    Raises:
      ValueError: a name that cannot be written on a command line, or a built-in one.
    """
    check_function("opener", opener, "that returns a source")
    form = _form_of(name, opener) if form is None else form
    _REGISTRY.register(name, opener, description=description)
    _FORMS[name] = form


def names() -> tuple[str, ...]:
    """Returns the kinds of sources, those of other packages included."""
    return _REGISTRY.names()


def forms() -> tuple[str, ...]:
    """Returns how each kind of source is written, in the order of `names()`."""
    return tuple(_FORMS.get(name, f"{name}:PLACE") for name in names())


def description(name: str) -> str:
    """Returns the line that describes a kind of source."""
    return _REGISTRY.description(name)


class SourceSpec(NamedTuple):
    """The parts of a source as it is written, `KIND:PLACE,OPTION=VALUE,...`.

    Attributes:
      kind: one of `lmjax.data.names()`.
      place: what follows the colon; empty where nothing does.
      options: values by option, as text.
    """

    kind: str
    place: str
    options: Mapping[str, str]

    @classmethod
    def parse(cls, source: str) -> "SourceSpec":
        """Parses the text of a source.

        Raises:
          ValueError: no such kind or option, or a place or an option that is missing.
        """
        if not isinstance(source, str):
            raise ValueError(
                f"source must be a text, one of {'; '.join(forms())}; got {brief(source)}"
            )
        head, *pairs = re.split(r",(?=[a-z_]+=)", source)
        kind, _, place = head.partition(":")
        if kind not in _REGISTRY:
            found = f"; for a folder of images, folder:{source}" if os.path.isdir(source) else ""
            raise ValueError(f"source must be one of {'; '.join(forms())}; got {source!r}{found}")
        spec = cls(kind, place, dict(pair.split("=", 1) for pair in pairs))
        spec._check()
        return spec

    def with_options(self, **options: object) -> "SourceSpec":
        """Returns the source with some options added or replaced; values become text.

        Raises:
          ValueError: no such option.
        """
        given = {name: str(value) for name, value in options.items()}
        spec = self._replace(options={**self.options, **given})
        spec._check()
        return spec

    @property
    def accepts(self) -> tuple[str, ...]:
        """Names of the options of this kind of source."""
        return tuple(name for name in _keywords(_REGISTRY.get(self.kind)) if name != "length")

    @property
    def generated(self) -> bool:
        """Whether examples are generated on demand, in any number."""
        return "length" in _keywords(_REGISTRY.get(self.kind))

    def for_training(self) -> "SourceSpec":
        """Returns the source with its training split, where it has splits and none is given.

        Without a split, sources have the images that are to be judged.
        """
        split = _keywords(_REGISTRY.get(self.kind)).get("split")
        if split is None or split.default is None or "split" in self.options:
            return self
        return self.with_options(split=_TRAINING_SPLITS.get(self.kind, "train"))

    def open(self, *, length: int | None = None) -> Source:
        """Opens the source.

        Args:
          length: how many examples, of sources that are generated; None takes their default.

        Raises:
          ValueError: what the source itself refuses.
          OSError: it cannot be read.
        """
        # Shells expand a ~ only at the start of a word.
        options = {name: os.path.expanduser(text) for name, text in self.options.items()}
        number = {"length": length} if self.generated and length is not None else {}
        place = (os.path.expanduser(self.place),) if self.place else ()
        return _REGISTRY.get(self.kind)(*place, **options, **number)

    def __str__(self) -> str:
        options = "".join(f",{name}={text}" for name, text in self.options.items())
        return f"{self.kind}{self.place and f':{self.place}'}{options}"

    def _check(self) -> None:
        opener = _REGISTRY.get(self.kind)
        for name in self.options:
            if name not in self.accepts:
                raise ValueError(
                    f"source {str(self)!r}: no option {name}; {self.kind} has "
                    f"{', '.join(self.accepts) or 'none'}"
                )
        required = [name for name, each in _keywords(opener).items() if each.default is each.empty]
        if bool(self.place) != _takes_place(opener) or not set(required) <= set(self.options):
            form = _FORMS.get(self.kind) or _form_of(self.kind, opener)
            raise ValueError(f"source {str(self)!r} must be {form}")


def open_source(source: str, *, length: int | None = None) -> Source:
    """Opens a source by what is written for it on the command line.

    Example:
      >>> open_source("digit-scenes,split=train,seed=3")
      >>> open_source("folder:val,masks=val-masks")
      >>> open_source("csv:pets.csv")
      >>> open_source("tfds:oxford_iiit_pet[test]")

    Args:
      source: its kind, a colon, its place, and options of `DigitScenes`, `CutoutScenes`,
        `from_folder`, `from_csv`, `from_imagenet` and its like, or `from_tfds` as `,name=value`.
      length: number of examples of sources that have none of their own (digit scenes and cut-out
        scenes; 500 by default).

    Raises:
      ValueError: no such kind or option, or what the source itself refuses.
      OSError: it cannot be read.
    """
    return SourceSpec.parse(source).open(length=length)


def _keywords(opener: Opener) -> dict[str, inspect.Parameter]:
    parameters = inspect.signature(opener).parameters
    return {name: each for name, each in parameters.items() if each.kind is each.KEYWORD_ONLY}


def _takes_place(opener: Opener) -> bool:
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return any(each.kind in positional for each in inspect.signature(opener).parameters.values())


def _form_of(name: str, opener: Opener) -> str:
    """Returns how a source is written, from the signature of its opener."""
    options = [
        f",{option}=..." if each.default is each.empty else f"[,{option}=...]"
        for option, each in _keywords(opener).items()
        if option != "length"
    ]
    return f"{name}{':PLACE' if _takes_place(opener) else ''}{''.join(options)}"


def _digit_scenes(
    *,
    split: str = "test",
    seed: str = "0",
    spurious: str | None = None,
    cue: str | None = None,
    reverse: str | None = None,
    length: int = _SCENES,
) -> Source:
    from lmjax.data.digits.scenes import DigitScenes

    if not seed.isdecimal():
        raise ValueError(f"seed must be a number from 0, got {seed!r}")
    if reverse not in _REVERSE:
        raise ValueError(f"reverse must be yes or no, got {reverse!r}")
    return DigitScenes(
        split,
        length=length,
        seed=int(seed),
        spurious=None if spurious is None else _probability(spurious),
        cue=cue,
        reverse=_REVERSE[reverse],
    )


def _cutout_scenes(
    *,
    seed: str = "0",
    size: str = "256",
    backgrounds: str = "photographs",
    sides: str = "0.35-0.6",
    stamps: str | None = None,
    length: int = _SCENES,
) -> Source:
    from lmjax.data.cutouts.scenes import CutoutScenes

    low, _, high = sides.partition("-")
    try:
        shares = float(low), float(high)
    except ValueError:
        raise ValueError(f"sides must be LOW-HIGH, such as 0.35-0.6; got {sides!r}") from None

    for name, value in (("seed", seed), ("size", size)):
        if not value.isdecimal():
            raise ValueError(f"{name} must be a number, got {value!r}")
    return CutoutScenes(
        length=length,
        seed=int(seed),
        size=int(size),
        backgrounds=backgrounds,
        sides=shares,
        stamps=stamps,
    )


def _probability(spurious: str) -> float:
    try:
        return float(spurious)
    except ValueError:
        raise ValueError(f"spurious must be a probability, 0..1, got {spurious!r}") from None


# Openers are imported on first use: that of tfds imports tensorflow-datasets, 2 seconds.
_BUILTIN = {
    "digit-scenes[,split=SPLIT][,seed=N][,spurious=P][,cue=KIND]...": (
        _digit_scenes,
        "Handwritten digits on photographs, made on demand, with exact masks.",
    ),
    "cutout-scenes[,backgrounds=KIND][,sides=LOW-HIGH][,stamps=PATH][,seed=N][,size=N]": (
        _cutout_scenes,
        "Cut-outs of ImageNet's classes on photographs, made on demand, with exact masks.",
    ),
    "folder:PATH[,masks=PATH][,saliency=PATH][,classes=FILE]": (
        "lmjax.data.files.folder:from_folder",
        "Images in a folder for each class, or all in one folder.",
    ),
    "csv:FILE[,classes=FILE]": (
        "lmjax.data.files.table:from_csv",
        "Images that a table lists.",
    ),
    "imagenet:PATH[,labels=FILE]": (
        "lmjax.data.imagenet.validation:from_imagenet",
        "ImageNet's validation images.",
    ),
    "salient-imagenet:PATH,images=PATH[,features=spurious]": (
        "lmjax.data.imagenet.salient:from_salient_imagenet",
        "Salient ImageNet: core and spurious features of training images.",
    ),
    "pixel-imagenet:PATH,images=PATH": (
        "lmjax.data.imagenet.masks:from_pixel_imagenet",
        "Pixel ImageNet: objects of training images.",
    ),
    "imagenet-s:PATH[,split=train-semi]": (
        "lmjax.data.imagenet.masks:from_imagenet_s",
        "ImageNet-S: images with their classes segmented.",
    ),
    "part-imagenet:PATH[,split=train]": (
        "lmjax.data.imagenet.masks:from_part_imagenet",
        "PartImageNet: whole objects of 158 classes.",
    ),
    "tfds:NAME[SPLIT][,data_dir=PATH][,mask=FEATURE]...": (
        "lmjax.data.tfds.source:from_tfds",
        "Datasets that tensorflow-datasets has prepared.",
    ),
}

for _form, (_opener, _description) in _BUILTIN.items():
    _name = re.split(r"[:\[]", _form)[0]
    _REGISTRY.register(_name, _opener, description=_description, builtin=True)
    _FORMS[_name] = _form

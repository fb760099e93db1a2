"""Datasets that tensorflow-datasets has prepared, without TensorFlow: `tfds:NAME[SPLIT]`.

Importing this module imports tensorflow-datasets.
"""

# tensorflow_datasets imports its modules when they are used, which its stubs do not show.
# pyright: reportAttributeAccessIssue=false

import contextlib
import functools
import hashlib
import json
import operator
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tensorflow_datasets as tfds

from lmjax._utils.text import one_line
from lmjax.data.catalogue import build_command, default_data_dir, prepared
from lmjax.data.files.images import mask_of_values, mask_rule, read_image, read_mask, read_saliency
from lmjax.data.imagenet import synsets
from lmjax.data.source import Example, check_sizes
from lmjax.data.tfds import panoptic
from lmjax.data.tfds.panoptic import CategorySource
from lmjax.data.tfds.tfrecord import TfrecordFiles

_FEATURES = {
    "image": ("image",),
    "label": ("label",),
    "object_mask": ("object_mask", "segmentation_mask", "segmentation", "mask"),
    "tight_mask": ("tight_mask",),
    "saliency": ("saliency",),
    "spurious_mask": ("spurious_mask",),
    "id": ("id", "file_name", "filename", "image/filename", "image/id", "image_id"),
}
"""Names of features that are taken for the fields of an example; the first present one is used."""

_MASKS = {
    "oxford_iiit_pet": {"background": 2},  # 1 is the animal, 3 its outline
    "caltech_birds2011": {"at_least": 128},  # grey levels are shares of people's votes
}
"""Values of masks that are on the object, where these are not all values but 0."""


_TRUSTED = ("tensorflow_datasets.", "lmjax.")
_RANDOM_ACCESS = ("array_record", "parquet")  # that tensorflow-datasets has itself


class Part(NamedTuple):
    """Examples `start` to `stop` of a split."""

    split: str
    start: int
    stop: int


def from_tfds(
    name: str,
    *,
    split: str | None = None,
    data_dir: str | os.PathLike | None = None,
    image: str | None = None,
    label: str | None = None,
    mask: str | None = None,
    saliency: str | None = None,
    background: int | str | None = None,
    at_least: int | str | None = None,
    category: str | None = None,
) -> "TfdsSource | CategorySource":
    """Opens a split of a dataset that tensorflow-datasets has prepared, in its order.

    Files may be array_record, parquet (which is read into memory) or tfrecord. The dataset's own
    code is not needed, nor TensorFlow.

    Example:
      >>> source = lmjax.data.from_tfds("oxford_iiit_pet", split="test")
      >>> source[0].object_mask  # the trimap: all but background

    Args:
      name: of the dataset, `NAME[/CONFIG][:VERSION]`, or a folder that holds a prepared one (with
        features.json). It may end in the split: `NAME[SPLIT]`.
      split: such as "test" or "train[:10%]"; not needed where there is only one.
      data_dir: folder of tensorflow-datasets; its own default otherwise.
      image, label, mask, saliency: names of features. By default the features of these names (for
        masks also object_mask, segmentation_mask, segmentation), or the only image.
      background: the value of masks outside the object; all others are on it. By default 2 for
        oxford_iiit_pet, otherwise 0.
      at_least: the least value on the object, instead of `background`. By default 128 for
        caltech_birds2011, where grey levels are shares of people's votes.
      category: for datasets with panoptic segmentations (coco/2017_panoptic): takes only the
        examples that show it, with everything that shows it as their object. All examples are read
        once to find them.

    Returns:
      A source. Labels are those of the dataset; but where its classes are ImageNet's WordNet ids,
      they are the numbers of ImageNet's networks (imagenette, for one, numbers them otherwise).

    Raises:
      ValueError: not prepared, no such split or feature, a format without random access. The
        message has the command to run.
    """
    name, split = _with_split(name, split)
    info = _info(name, data_dir)
    _check_format(info)
    parts = _parts(info, split)
    given = {"image": image, "label": label, "object_mask": mask, "saliency": saliency}
    features = _features(info.features, given)
    rule = mask_rule(background, at_least) or _MASKS.get(info.name, {})
    source = TfdsSource(str(info.data_dir), parts, features, rule)
    return source if category is None else _category(source, category, info.features)


def _with_split(name: str, split: str | None) -> tuple[str, str | None]:
    """Splits `NAME[SPLIT]`, both of which may have brackets of their own."""
    if not name.endswith("]") or _is_prepared(name):
        return name, split
    depth = 0
    for at in reversed(range(len(name))):
        depth += {"]": 1, "[": -1}.get(name[at], 0)
        if depth == 0:
            break
    else:
        raise ValueError(f"TFDS dataset {name} has a ] without its [; write NAME[SPLIT]")
    if split is not None:
        raise ValueError(f"split {split!r} and {name} both name a split; give one")
    return name[:at], name[at + 1 : -1]


def _is_prepared(folder: str) -> bool:
    return os.path.isfile(os.path.join(folder, "features.json"))


def _category(source: "TfdsSource", category: str, features) -> CategorySource:
    for name in panoptic.FEATURES:
        if name not in features:
            raise ValueError(
                f"category={category} needs the features {' and '.join(panoptic.FEATURES)}; the "
                f"dataset has {', '.join(sorted(features))}"
            )
    return CategorySource(source, category, tuple(features["panoptic_objects"]["label"].names))


class TfdsSource:
    """Examples of a prepared dataset, each read on demand; `from_tfds` makes one.

    Args:
      folder: folder of the prepared dataset, with features.json.
      parts: parts of its splits, one after the other.
      features: names of features by field of an example.
      mask_rule: options of `lmjax.data.files.images.read_mask`.
    """

    def __init__(
        self,
        folder: str,
        parts: Sequence[Part],
        features: Mapping[str, str],
        mask_rule: Mapping[str, int],
    ):
        self._folder, self._parts = folder, tuple(parts)
        self._features, self._mask_rule = dict(features), dict(mask_rule)

    def __len__(self) -> int:
        return sum(part.stop - part.start for part in self._parts)

    def __getitem__(self, index: int) -> Example:
        split, number = self._find(operator.index(index))
        values = self.values(index)
        found = {field: values[name] for field, name in self._features.items()}
        name = _text(found.pop("id", f"{self._info.full_name}/{split}/{number}"))
        label = found.pop("label", None)
        fields = {field: self._read(field, value, name) for field, value in found.items()}
        return check_sizes(Example(name, label=self._label(label), **fields), self._features)

    def values(self, index: int) -> dict[str, Any]:
        """Reads all features of an example by name, pictures as the content of files.

        Raises:
          ValueError: it cannot be read.
        """
        split, number = self._find(operator.index(index))
        try:
            record = self._records(split)[number]
            if record is None:  # array_record gives None where a file was cut off
                raise ValueError("its record is missing")
            return self._info.features.deserialize_example_np(record, decoders=self._undecoded)
        except MemoryError:
            raise
        except Exception as error:  # each format raises its own
            raise ValueError(
                f"example {number} of split {split} in {self._folder} cannot be read: {error}"
            ) from error

    def __repr__(self) -> str:
        return f"TfdsSource({self._info.full_name}, {len(self)} examples)"

    def __getstate__(self) -> dict[str, Any]:
        """Returns the state to pickle: open files and readers are left out, and made again."""
        kept = ("_folder", "_parts", "_features", "_mask_rule")
        return {name: getattr(self, name) for name in kept}

    @functools.cached_property
    def version(self) -> str:
        """Name, version and split of the dataset, and a hash of its size and of the fields read."""
        splits = [(split, self._info.splits[split]) for split, _, _ in self._parts]
        sizes = [(split, info.num_examples, info.num_bytes) for split, info in splits]
        depends = repr((self._parts, sizes, sorted(self._features.items()), self._mask_rule))
        digest = hashlib.sha256(depends.encode()).hexdigest()[:16]
        return f"tfds/{self._info.full_name}/{'+'.join(split for split, _ in splits)}/{digest}"

    @property
    def class_names(self) -> tuple[str, ...] | None:
        """Names of the classes in the order of labels, where known."""
        return self._classes[1]

    def _find(self, index: int) -> tuple[str, int]:
        if not -len(self) <= index < len(self):
            raise IndexError(f"index is {index}; {self!r}")
        index %= len(self)
        for split, start, stop in self._parts:
            if index < stop - start:
                return split, start + index
            index -= stop - start
        raise AssertionError

    def _read(self, field: str, value, name: str) -> np.ndarray:
        what = f"{field} of {name}"
        if not isinstance(value, bytes):
            return self._array(field, np.asarray(value), what)
        if field == "image":
            return read_image(value, name=what)
        if field == "saliency":
            return read_saliency(value, name=what)
        return read_mask(value, name=what, **self._mask_rule)

    def _array(self, field: str, value: np.ndarray, what: str) -> np.ndarray:
        """Converts a feature that is an array, not the file of a picture."""
        if field == "image":
            return value
        if value.ndim == 3 and value.shape[2] == 1:
            value = value[..., 0]
        if value.ndim != 2:
            raise ValueError(f"{what} must be [H, W] or [H, W, 1], got shape {value.shape}")
        if field != "saliency":
            return mask_of_values(value, **self._mask_rule)
        saliency = value / np.float32(255) if value.dtype == np.uint8 else value.astype(np.float32)
        if not ((saliency >= 0) & (saliency <= 1)).all():
            raise ValueError(
                f"{what} must be from 0 to 1, or to 255 in uint8; got {value.dtype} from "
                f"{value.min():g} to {value.max():g}"
            )
        return saliency

    def _label(self, label) -> int | None:
        if label is None or label < 0:  # test sets have -1
            return None
        return int(label) if self._classes[0] is None else self._classes[0][int(label)]

    def _records(self, split: str) -> Any:
        if split not in self._opened:
            self._opened[split] = _records(self._info, split)
        return self._opened[split]

    @functools.cached_property
    def _opened(self) -> dict[str, Sequence]:
        return {}

    @functools.cached_property
    def _info(self):
        return tfds.core.read_only_builder.builder_from_directory(self._folder).info

    @functools.cached_property
    def _undecoded(self) -> dict[str, Any]:
        """Decoders that leave pictures as files, which `lmjax.data.files.images` reads."""
        return dict.fromkeys(_images(self._info.features), tfds.decode.SkipDecoding())

    @functools.cached_property
    def _classes(self) -> tuple[list[int] | None, tuple[str, ...] | None]:
        """Labels by the dataset's own, or None where they are equal; and names of classes."""
        features, name = self._info.features, self._features.get("label")
        feature = None if name is None else features[name]
        if not isinstance(feature, tfds.features.ClassLabel) or not feature.num_classes:
            return None, None
        names, ids = tuple(feature.names), synsets.synsets()
        if set(names) <= set(ids):
            return [ids.index(name) for name in names], ids
        return None, names


def _info(name: str, data_dir: str | os.PathLike | None):
    builders = tfds.core.read_only_builder
    family = re.split("[/:]", name)[0]
    if _is_prepared(name):
        check_features(name)
        with _naming_damaged(name):
            return builders.builder_from_directory(os.path.abspath(name)).info
    options = {} if data_dir is None else {"data_dir": os.path.expanduser(data_dir)}
    folder = Path(data_dir or default_data_dir()).expanduser() / family
    check_features(folder)
    try:
        with _naming_damaged(folder):
            return builders.builder_from_files(name, **options).info
    except tfds.core.registered.DatasetNotFoundError:
        pass
    except _DamagedError:
        raise
    except ValueError as error:
        raise ValueError(
            f"TFDS dataset {name!r} must be NAME, NAME/CONFIG or either with :VERSION, or a folder "
            "with a features.json"
        ) from error
    found = [each.name for each in prepared(data_dir) if each.name.split("/")[0] == family]
    if found:
        raise ValueError(
            f"TFDS dataset {name} is not prepared in {data_dir or default_data_dir()}; there is "
            f"{', '.join(found)} (NAME/CONFIG/VERSION): say NAME/CONFIG or NAME/CONFIG:VERSION"
        )
    raise ValueError(
        f"TFDS dataset {name} is not prepared in {data_dir or default_data_dir()}; prepare it: "
        f"{build_command(name, data_dir)}"
    )


class _DamagedError(ValueError):
    """Raised for a dataset whose description cannot be read."""


@contextlib.contextmanager
def _naming_damaged(folder: str | os.PathLike) -> Iterator[None]:
    """Turns errors of damaged descriptions of datasets, of many types, into one ValueError.

    Args:
      folder: of a prepared dataset, or one above.
    """
    for path in sorted(Path(folder).rglob("dataset_info.json")):
        wrong = _wrong(path)
        if wrong is not None:
            raise _DamagedError(f"{path} is damaged ({wrong}); prepare the dataset again")
    try:
        yield
    except (ValueError, tfds.core.registered.DatasetNotFoundError, MemoryError):
        raise
    except Exception as error:  # each part of tensorflow-datasets raises its own
        reason = f"{type(error).__name__}: {error}"
        raise _DamagedError(
            f"dataset_info.json or features.json in {folder} is damaged ({reason}); prepare the "
            "dataset again"
        ) from error


def _wrong(path: Path) -> str | None:
    """Returns what is wrong with a dataset_info.json, by its schema, or None."""
    from google.protobuf import json_format
    from tensorflow_datasets.core.proto import dataset_info_pb2

    try:
        found = json_format.Parse(path.read_text("utf-8"), dataset_info_pb2.DatasetInfo())
        tfds.core.Version(found.version)
        if found.file_format:
            tfds.core.FileFormat(found.file_format)
    except (OSError, ValueError, RecursionError, json_format.ParseError) as error:
        return one_line(error)
    return None if found.splits else "it has no splits"


def check_features(folder: str | os.PathLike) -> None:
    """Raises ValueError where a features.json names a class of another package.

    tensorflow-datasets imports the modules of the classes that such a file names, and importing
    runs code.

    Args:
      folder: of a prepared dataset, or one above; one that does not exist has no such files.
    """
    for path in sorted(Path(folder).rglob("features.json")):
        try:
            content = json.loads(path.read_text("utf-8"))
        except ValueError as error:
            raise ValueError(f"{path} is damaged ({error}); prepare the dataset again") from error
        for name in _classes_named(content):
            if not name.startswith(_TRUSTED):
                raise ValueError(
                    f"{path} names the class {name!r}; reading it would run its module's code, and "
                    f"features may be of {' and '.join(t.rstrip('.') for t in _TRUSTED)} only"
                )


def _classes_named(content: Any) -> Iterator[str]:
    """Yields the Python classes that a features.json names."""
    if isinstance(content, list):
        content = dict(enumerate(content))
    if not isinstance(content, dict):
        return
    for key, value in content.items():
        if key in ("pythonClassName", "type") and isinstance(value, str) and "." in value:
            yield value
        yield from _classes_named(value)


def _parts(info, split: str | None) -> list[Part]:
    splits = list(info.splits)
    lengths = {name: info.splits[name].num_examples for name in splits}
    if split is None and len(splits) == 1:
        split = splits[0]
    try:
        found = tfds.core.ReadInstruction.from_spec(split or "").to_absolute(info.splits)
    except Exception as error:  # of several kinds
        counted = ", ".join(f"{name} ({length} examples)" for name, length in lengths.items())
        raise ValueError(
            f"split {split!r} of TFDS dataset {info.full_name}: it has {counted}, or parts such as "
            "train[:10%]"
        ) from error
    parts = [
        Part(
            each.splitname,
            0 if each.from_ is None else each.from_,
            lengths[each.splitname] if each.to is None else each.to,
        )
        for each in found
    ]
    for part in parts:
        if part.stop < part.start:
            raise ValueError(
                f"split {split!r} of TFDS dataset {info.full_name} has a part of {part.split} from "
                f"{part.start} to {part.stop}; the second number must not be below the first"
            )
    if not sum(part.stop - part.start for part in parts):
        raise ValueError(f"split {split!r} of TFDS dataset {info.full_name} is empty")
    return parts


def _features(features, given: Mapping[str, str | None]) -> dict[str, str]:
    """Names features by the fields of examples that are read from them."""
    chosen = {}
    for field, names in _FEATURES.items():
        name = given.get(field)
        if name is not None and name not in features:
            raise ValueError(f"no feature {name!r}; the dataset has {', '.join(sorted(features))}")
        if name is not None and field == "label" and not _is_number(features[name]):
            raise ValueError(
                f"label={name} must be a whole number or a class, not {features[name]}"
            )
        name = name or next((each for each in names if each in features), None)
        if field == "label" and name is not None and not _is_number(features[name]):
            continue  # text, or several
        chosen |= {} if name is None else {field: name}
    images = _images(features)
    if "image" not in chosen and len(images) == 1:
        chosen["image"] = images[0]
    if "image" not in chosen:
        raise ValueError(
            f"image must be one of the features {', '.join(sorted(features))}; none is called so"
        )
    return chosen


def _is_number(feature) -> bool:
    return feature.shape == () and np.issubdtype(feature.np_dtype, np.integer)


def _images(features) -> list[str]:
    return [name for name in features if isinstance(features[name], tfds.features.Image)]


def _check_format(info) -> None:
    formats = {each.value for each in info.available_file_formats()}
    if not formats & {*_RANDOM_ACCESS, "tfrecord"}:
        raise ValueError(
            f"{info.data_dir} is prepared as {', '.join(sorted(formats))}, which has no random "
            f"access; convert it: tfds convert_format --dataset_version_dir={info.data_dir} "
            "--out_file_format=array_record"
        )


def _records(info, split: str) -> Any:
    """Opens the records of a split, by number."""
    if {each.value for each in info.available_file_formats()} & {*_RANDOM_ACCESS}:
        builder = tfds.core.read_only_builder.builder_from_directory(info.data_dir)
        raw = tfds.decode.DeserializeMethod.RAW_BYTES
        return builder.as_data_source(split, deserialize_method=raw)
    return TfrecordFiles(info.splits[split].filepaths, info.splits[split].shard_lengths)


def _text(value) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)

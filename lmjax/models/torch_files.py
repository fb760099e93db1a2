"""Plain state dicts of torch, read without torch: the zip format, and the one before it.

A `.pth` file is a pickle, which could run any code. Here it may name only what a state dict needs:
ordered dicts, storages and tensors. A file that names anything else is refused, so that nothing of
it runs.
"""

import collections
import math
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import ml_dtypes
import numpy as np

_MAGIC = 0x1950A86A20F9469CFC6C  # the first pickle of the format before zip
_DTYPES: dict[str, Any] = {
    "FloatStorage": np.float32,
    "DoubleStorage": np.float64,
    "HalfStorage": np.float16,
    "BFloat16Storage": ml_dtypes.bfloat16,
    "LongStorage": np.int64,
    "IntStorage": np.int32,
    "ShortStorage": np.int16,
    "CharStorage": np.int8,
    "ByteStorage": np.uint8,
    "BoolStorage": np.bool_,
}


class NotPlainError(ValueError):
    """Raised for a file that holds more than a plain state dict.

    Attributes:
      name: what it holds besides, such as `"torch.nn.modules.conv.Conv2d"`.
    """

    def __init__(self, name: str):
        super().__init__(f"it holds {name} beside tensors")
        self.name = name


class _Storage:
    """A stretch of numbers that tensors are views of."""

    def __init__(self, dtype: Any, key: str, length: int):
        self.dtype, self.key, self.length = np.dtype(dtype), key, length
        self.values: np.ndarray | None = None

    def fill(self, data: bytes) -> None:
        """Takes the numbers from the bytes of the file, which are little-endian."""
        if len(data) != self.length * self.dtype.itemsize:
            raise ValueError(f"storage {self.key} has {len(data)} bytes")
        self.values = np.frombuffer(data, self.dtype)


class _Tensor(NamedTuple):
    """A view of a storage, which may not have been read yet."""

    storage: _Storage
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]
    negated: bool = False

    def array(self) -> np.ndarray:
        """Returns the numbers, floating-point ones as float32."""
        values = self.storage.values
        numbers = (self.offset, *self.size, *self.stride)
        if values is None or len(self.size) != len(self.stride) or min(numbers) < 0:
            raise ValueError("a tensor without numbers")
        if any(step == 0 and n > 1 for step, n in zip(self.stride, self.size)):
            raise NotPlainError("a tensor that repeats its numbers")
        last = self.offset + sum((n - 1) * step for n, step in zip(self.size, self.stride))
        if 0 in self.size:
            return np.zeros(self.size, self.storage.dtype)
        if last >= len(values) or math.prod(self.size) > len(values):
            raise ValueError("a tensor that is larger than its storage")
        strides = [step * values.itemsize for step in self.stride]
        view = np.lib.stride_tricks.as_strided(values[self.offset :], self.size, strides)
        floating = view.dtype.kind == "f" or view.dtype == ml_dtypes.bfloat16
        numbers = np.array(view, np.float32 if floating else view.dtype)
        return -numbers if self.negated else numbers


class _Unpickler(pickle.Unpickler):
    """Reads pickles that name nothing but what a state dict needs."""

    def __init__(self, file: BinaryIO):
        super().__init__(file, encoding="utf-8")
        self.storages: dict[str, _Storage] = {}

    def find_class(self, module: str, name: str) -> Any:
        """Returns the few things that a state dict names."""
        if module == "torch" and name in _DTYPES:
            return name
        found = _KNOWN.get((module, name))
        if found is None:
            raise NotPlainError(f"{module}.{name}")
        return found

    def persistent_load(self, pid: Any) -> _Storage:
        """Returns a storage by what the pickle says of it."""
        kind, storage, key, _, length, *view = pid
        if kind != "storage" or storage not in _DTYPES or any(v is not None for v in view):
            raise NotPlainError(f"a {kind} of another form")
        if not isinstance(length, int) or length < 0:
            raise ValueError("a storage of no length")
        return self.storages.setdefault(str(key), _Storage(_DTYPES[storage], str(key), length))


def _rebuild_tensor(
    storage, offset, size, stride, _grad: Any = False, _hooks: Any = None, bits: Any = None
) -> _Tensor:
    if not isinstance(storage, _Storage):
        raise ValueError("a tensor without a storage")
    if bits is not None and (not isinstance(bits, dict) or bits.keys() - {"neg", "conj"}):
        raise NotPlainError("a tensor with more than numbers")
    negated = bool((bits or {}).get("neg"))  # storages here are real: conj changes nothing
    return _Tensor(storage, int(offset), tuple(map(int, size)), tuple(map(int, stride)), negated)


def _rebuild_parameter(tensor: Any, *_: Any) -> Any:
    return tensor


_KNOWN = {
    ("collections", "OrderedDict"): collections.OrderedDict,
    ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor,
    ("torch._utils", "_rebuild_parameter"): _rebuild_parameter,
}


def read(path: Path) -> Any:
    """Returns what a file of torch holds, with NumPy arrays in the place of tensors.

    Floating-point numbers become float32.

    Args:
      path: the file.

    Raises:
      NotPlainError: it names something that a state dict does not need.
      ValueError: it is damaged, or no file of torch.
    """
    try:
        content = _read_zip(path) if zipfile.is_zipfile(path) else _read_older(path)
    except NotPlainError:
        raise
    except RecursionError as error:
        raise ValueError("it is nested too deep") from error
    except Exception as error:  # hostile bytes raise a dozen types
        raise ValueError(str(error) or type(error).__name__) from error
    return content


def _read_zip(path: Path) -> Any:
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        pickles = [name for name in names if name.endswith("data.pkl") and name.count("/") <= 1]
        if len(pickles) != 1:
            raise ValueError("no data.pkl in the archive")
        folder = pickles[0].removesuffix("data.pkl")
        if f"{folder}byteorder" in names and archive.read(f"{folder}byteorder") != b"little":
            raise NotPlainError("numbers in another byte order")
        with archive.open(pickles[0]) as file:
            unpickler = _Unpickler(file)  # type: ignore[arg-type]
            content = unpickler.load()
        for key, storage in unpickler.storages.items():
            info = archive.getinfo(f"{folder}data/{key}")
            if info.file_size != storage.length * storage.dtype.itemsize:
                raise ValueError(f"storage {key} has {info.file_size} bytes")
            storage.fill(archive.read(info))
        return _with_arrays(content)


def _read_older(path: Path) -> Any:
    with open(path, "rb") as file:
        if _Unpickler(file).load() != _MAGIC:
            raise ValueError("no file of torch")
        _Unpickler(file).load()  # the version of the format
        system = _Unpickler(file).load()
        if not (isinstance(system, dict) and system.get("little_endian", True)):
            raise NotPlainError("numbers in another byte order")
        unpickler = _Unpickler(file)
        content = unpickler.load()
        for key in _Unpickler(file).load():
            storage = unpickler.storages[str(key)]
            length = int.from_bytes(file.read(8), "little")
            if length != storage.length:
                raise ValueError(f"storage {key} has {length} numbers")
            storage.fill(file.read(length * storage.dtype.itemsize))
        return _with_arrays(content)


def _with_arrays(content: Any) -> Any:
    return replaced(content, lambda each: each.array() if isinstance(each, _Tensor) else each)


def replaced(content: Any, replace: Callable[[Any], Any]) -> Any:
    """Returns nested dicts and lists with something in the place of what is in them.

    They may be nested to any depth, and hold each other. Tuples become lists.

    Args:
      content: what a file holds.
      replace: gives what stands in the place of anything but a dict, list or tuple.
    """
    root = [content]
    made: dict[int, Any] = {}
    left: list[tuple[Any, Any]] = [(root, 0)]
    while left:
        holder, key = left.pop()
        value = holder[key]
        if not isinstance(value, dict | list | tuple) or isinstance(value, _Tensor):
            holder[key] = replace(value)
            continue
        if id(value) not in made:
            new = dict(value) if isinstance(value, dict) else list(value)
            made[id(value)] = new
            left += [(new, each) for each in (new if isinstance(new, dict) else range(len(new)))]
        holder[key] = made[id(value)]
    return root[0]

"""Checkpoints: state dicts of torch in both formats and of safetensors, damaged and hostile."""

import functools
import io
import json
import pickle
import struct
import zipfile
from pathlib import Path

import numpy as np
import safetensors.numpy

import lmjax
from lmjax.models import checkpoints, recognise
from tests.fuzz.harness import STRANGE_TEXT, damaged, pick, strange

_STATE = {
    "conv.weight": np.arange(54, dtype=np.float32).reshape(2, 3, 3, 3),
    "fc.weight": np.ones((3, 2), np.float32),
    "fc.bias": np.zeros(3, np.float32),
    "bn.num_batches_tracked": np.array(3),
}
_SUFFIXES = {"zip": ("pth", "pt", "ckpt"), "older": ("pth", "pt"), "safetensors": ("safetensors",)}


def attempt(rng: np.random.Generator, folder: Path) -> str:
    form = pick(rng, _SUFFIXES)
    what = pick(rng, ("damaged", "damaged", "content", "hostile"))
    if form == "safetensors":
        content = _header_changed(rng) if what != "damaged" else _good(form)
    elif what == "hostile":
        content = _hostile(rng, folder)
    else:
        content = _torch(form, _other_content(rng)) if what == "content" else _good(form)
    exact = False
    if what == "damaged":
        exact = rng.random() < 0.1
        content = content if exact else damaged(rng, content)
    suffix = pick(rng, (*_SUFFIXES[form], *_SUFFIXES[form], "safetensors", "bin", ""))
    path = folder / f"weights.{suffix}"
    path.write_bytes(content)
    try:
        _use(rng, path)
    finally:
        assert not (folder / "pwned").exists(), "code of the file ran"
        assert path.read_bytes() == content, "the file was changed"
    if exact and suffix in _SUFFIXES[form]:
        found = checkpoints.read_state_dict(path)
        assert found.keys() == _STATE.keys()
        for name, value in _STATE.items():
            np.testing.assert_array_equal(found[name], value)
    return "answer"


def _use(rng: np.random.Generator, path: Path) -> None:
    use = pick(rng, ("read", "read", "convert", "recognise", "load"))
    if use == "read":
        for name, value in checkpoints.read_state_dict(path).items():
            assert isinstance(name, str)
            assert isinstance(value, np.ndarray)
    elif use == "convert":
        target = path.parent / "target.safetensors"
        lmjax.models.convert(path, target)
        checkpoints.read_state_dict(target)
    elif use == "recognise":
        recognise(path)
    else:
        lmjax.models.load("squeezenet1_1", weights=path)


@functools.cache
def _good(form: str) -> bytes:
    if form == "safetensors":
        return safetensors.numpy.save(_STATE)
    return _torch(form, _tensors())


def _tensors() -> dict:
    import torch

    return {name: torch.from_numpy(value) for name, value in _STATE.items()}


def _torch(form: str, content) -> bytes:
    import torch

    file = io.BytesIO()
    torch.save(content, file, _use_new_zipfile_serialization=form == "zip")
    return file.getvalue()


def _other_content(rng: np.random.Generator):
    """What a file may hold in the place of a state dict of plain tensors."""
    import torch

    tensors = _tensors()
    weight = tensors["conv.weight"]
    odd = (
        *(weight.to_sparse(), weight.to("meta"), weight.to(torch.complex64), weight[:, :, :, 0]),
        *(weight.half(), weight.bfloat16(), weight.double(), weight.expand(4, 2, 3, 3, 3)),
        *(torch.tensor(float("nan")), torch.zeros(0), weight.to(torch.float8_e4m3fn), [weight]),
        torch.quantize_per_tensor(weight, 0.1, 0, torch.qint8),
        torch.view_as_complex(torch.ones(2, 2)).conj(),
        *(torch._neg_view(weight), None, 3, "text", np.ones(3), weight.numpy(), {"a": weight}),
    )
    name = pick(rng, tensors)
    changed = dict(tensors)
    how = int(rng.integers(6))
    if how == 0:
        changed[name] = pick(rng, odd)
    elif how == 1:
        changed[pick(rng, STRANGE_TEXT)] = changed.pop(name)
    elif how == 2:
        changed[pick(rng, (3, None, (1, 2), b"x"))] = changed.pop(name)
    elif how == 3:
        del changed[name]
    elif how == 4:
        wrapper = pick(
            rng, ("state_dict", "model", "state_dict_ema", "model_ema", "teacher", "net")
        )
        return {wrapper: pick(rng, (changed, [changed], None, 3, {})), "epoch": 3, "args": {"x": 1}}
    else:
        return pick(rng, ([], {}, 3, None, "text", weight, list(tensors.values()), {"a": {}}))
    return changed


class _Touch:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path):
        self.path = str(path)

    def __reduce__(self):
        return open, (self.path, "w")


class _Many:
    def __reduce__(self):
        return bytearray, (2**40,)


def _hostile(rng: np.random.Generator, folder: Path) -> bytes:
    """A pickle that runs code, or asks for all memory, in either format or none."""
    deep = []
    for _ in range(3000):
        deep = [deep]
    held = pick(rng, (_Touch(folder / "pwned"), _Many(), {"a": _Touch(folder / "pwned")}))
    content = pickle.dumps({"conv.weight": held}, protocol=2)
    how = int(rng.integers(5))
    if how == 0:
        return content
    if how == 1:  # opcodes at random
        return b"\x80\x02" + rng.bytes(int(rng.integers(1, 60))) + b"."
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        name = pick(rng, ("archive/data.pkl", "data.pkl", "a/b/data.pkl", "../data.pkl"))
        archive.writestr(name, content if how < 4 else rng.bytes(40))
        archive.writestr("archive/data/0", b"\0" * int(rng.integers(0, 300)))
        if how == 3:
            archive.writestr("archive/data.pkl" + "2", content)
    return file.getvalue()


def _header_changed(rng: np.random.Generator) -> bytes:
    """A safetensors file whose header says something else than its data are."""
    content = _good("safetensors")
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])
    name = pick(rng, header)
    field = pick(rng, header[name])
    how = int(rng.integers(5))
    if how == 0:
        header[name][field] = _as_json(strange(rng))
    elif how == 1:
        del header[name][field]
    elif how == 2:
        header[name]["shape"] = pick(rng, ([2**40], [-1], [0, 2**62], [], "x", [1] * 70, None))
    elif how == 3:
        header["__metadata__"] = _as_json(pick(rng, ({"a": 3}, {"a": "b"}, [], strange(rng))))
    else:
        header[name]["dtype"] = pick(rng, ("F8_E4M3", "BF16", "F64", "I64", "BOOL", "X", "", 3))
    text = json.dumps(header).encode()
    said = pick(rng, (len(text), len(text), len(text), 2**63, 0, len(text) + 10**9))
    return struct.pack("<Q", said) + text + content[8 + length :]


def _as_json(value):
    try:
        json.dumps(value)
    except TypeError:
        return "x"
    return value

"""Files of torch read without torch: the same arrays, and nothing else."""

import collections
import struct

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lmjax.models import torch_files

FORMATS = {"zip": True, "older": False}
DTYPES = (
    *(torch.float32, torch.float64, torch.float16, torch.bfloat16),
    *(torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool),
)


def state() -> dict[str, torch.Tensor]:
    """Tensors of all types and kinds of views."""
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(4, 6, generator=generator)
    tensors = {str(dtype): (10 * values).to(dtype) for dtype in DTYPES}
    shared = torch.randn(100, generator=generator)
    return {
        **tensors,
        "transposed": values.T,
        "part": values[1:3, ::2],
        "first": shared[:40].reshape(5, 8),
        "second": shared[30:],
        "scalar": torch.tensor(3.0),
        "empty": torch.zeros(0, 3),
        "parameter": torch.nn.Parameter(values),
    }


def saved(path, content, form="zip"):
    torch.save(content, path, _use_new_zipfile_serialization=FORMATS[form])
    return path


def expected(tensor: torch.Tensor) -> np.ndarray:
    tensor = tensor.detach()
    return (tensor.float() if tensor.is_floating_point() else tensor).numpy()


@pytest.mark.parametrize("form", FORMATS)
def test_arrays_are_those_of_torch(tmp_path, form):
    path = saved(tmp_path / "a.pth", collections.OrderedDict(state()), form)
    found = torch_files.read(path)
    loaded = torch.load(path, weights_only=True)
    assert list(found) == list(loaded)
    for key, tensor in loaded.items():
        np.testing.assert_array_equal(found[key], expected(tensor), err_msg=key)
        assert found[key].dtype == expected(tensor).dtype


@pytest.mark.parametrize("form", FORMATS)
def test_networks_and_what_stands_beside_them(tmp_path, form):
    module = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4))
    content = {"state_dict": module.state_dict(), "epoch": 3, "best": [0.5, None], "name": "a"}
    found = torch_files.read(saved(tmp_path / "a.pth", content, form))
    assert (found["epoch"], found["best"], found["name"]) == (3, [0.5, None], "a")
    assert found["state_dict"].keys() == module.state_dict().keys()


class Call:
    """A pickle that calls a function."""

    def __init__(self, function, *arguments):
        self.function, self.arguments = function, arguments

    def __reduce__(self):
        return self.function, self.arguments


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("function", [open, eval, print, getattr, torch.load])
def test_anything_else_is_refused_before_it_runs(tmp_path, form, function, capsys):
    path = saved(tmp_path / "a.pth", {"a": Call(function, "sprung")}, form)
    with pytest.raises(torch_files.NotPlainError) as error:
        torch_files.read(path)
    assert error.value.name.endswith(function.__name__)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("offset", "size", "stride"),
    [
        (0, (5,), (1,)),  # behind the end
        (1, (4,), (1,)),
        (0, (2, 2), (3, 1)),
        (-1, (2,), (1,)),
        (0, (-2,), (1,)),
        (0, (2,), (-1,)),
        (0, (2, 2), (1,)),
        (0, (1 << 40,), (1,)),
    ],
)
def test_tensors_larger_than_their_numbers_are_refused(offset, size, stride):
    storage = torch_files._Storage(np.float32, "0", 4)
    storage.fill(np.zeros(4, np.float32).tobytes())
    with pytest.raises(ValueError, match="tensor"):
        torch_files._Tensor(storage, offset, size, stride).array()


def test_numbers_that_are_repeated_go_to_torch():
    storage = torch_files._Storage(np.float32, "0", 1)
    storage.fill(struct.pack("<f", 1.0))
    with pytest.raises(torch_files.NotPlainError):
        torch_files._Tensor(storage, 0, (1 << 40,), (0,)).array()


@pytest.fixture(scope="module", params=list(FORMATS))
def content(request, tmp_path_factory) -> bytes:
    return saved(tmp_path_factory.mktemp("files") / "a.pth", state(), request.param).read_bytes()


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_damaged_files_give_arrays_or_one_error(content, tmp_path_factory, data):
    """Bytes changed, cut out or cut off: never another exception, never more than the file holds."""
    damaged = bytearray(content)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(damaged) - 1))
        damaged[at] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(damaged)))
    if data.draw(st.booleans()):
        damaged = damaged[:cut]
    path = tmp_path_factory.mktemp("damaged") / "a.pth"
    path.write_bytes(bytes(damaged))
    try:
        found = torch_files.read(path)
    except ValueError as error:
        assert str(error)
    else:
        arrays = [v for v in found.values() if isinstance(v, np.ndarray)] if found else []
        assert sum(a.nbytes for a in arrays) <= 100 * len(content)

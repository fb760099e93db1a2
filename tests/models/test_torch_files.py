"""Files of torch read without torch: the same arrays, and nothing else."""

import collections
import struct
import sys
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lmjax.models import load, recognise, registry, torch_files
from lmjax.models.checkpoints import (
    StateDictMismatch,
    abstract_variables,
    read_state_dict,
    shapes,
)

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
    """Bytes changed or cut off: never another exception, never more than the file holds."""
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
    except ValueError:
        return
    arrays = [v for v in found.values() if isinstance(v, np.ndarray)] if found else []
    assert sum(a.nbytes for a in arrays) <= 100 * len(content)


PLAIN = torch.arange(12.0).reshape(3, 4)
UNREAD = {
    "a sparse tensor": lambda: [PLAIN.to_sparse(), PLAIN.to_sparse_csr()],
    "a quantised tensor": lambda: [torch.quantize_per_tensor(PLAIN, 0.1, 0, torch.qint8)],
    "a nested tensor": lambda: [torch.nested.nested_tensor([torch.ones(2), torch.ones(3)])],
    "a tensor without numbers": lambda: [torch.empty(3, 4, device="meta")],
}


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("kind", UNREAD)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_tensors_that_are_no_arrays_are_named(tmp_path, form, kind):
    if (form, kind) == ("older", "a nested tensor"):
        pytest.skip("torch writes addresses in the place of its sizes")
    for tensor in UNREAD[kind]():
        path = saved(tmp_path / "a.pth", {"plain": PLAIN, "conv.weight": tensor}, form)
        with pytest.raises(ValueError, match=rf"a\.pth holds {kind}.* as conv\.weight"):
            read_state_dict(path)
        path = saved(path, {"state_dict": {"plain": PLAIN}, "other": tensor}, form)
        assert [*read_state_dict(path)] == ["plain"]


@pytest.mark.parametrize("form", FORMATS)
def test_views_that_stand_for_other_numbers_are_read_as_these(tmp_path, form):
    values = torch.complex(PLAIN, PLAIN + 1)
    tensors = {
        "negated": torch._neg_view(PLAIN),
        "imaginary": values.conj().imag,
        "conjugated": values.conj(),
        "expanded": torch.ones(1, 4).expand(3, 4),
        "float8": PLAIN.to(torch.float8_e4m3fn),
    }
    for name, tensor in tensors.items():
        if name == "float8" and form == "older":
            continue  # torch cannot read it
        found = read_state_dict(saved(tmp_path / "a.pth", {name: tensor}, form))[name]
        plain = tensor.float() if tensor.is_floating_point() else tensor
        np.testing.assert_array_equal(found, plain.resolve_conj().resolve_neg().numpy())


@pytest.mark.parametrize("form", FORMATS)
def test_metadata_may_be_nested_to_any_depth_and_hold_itself(tmp_path, form, monkeypatch):
    depths: dict = {}
    inner = depths
    for _ in range(3000):
        inner["a"] = {}
        inner = inner["a"]
    inner["a"] = [depths]
    path = tmp_path / "a.pth"
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(50_000)
    try:
        saved(path, {"state_dict": {"w": PLAIN}, "about": depths}, form)
    finally:
        sys.setrecursionlimit(limit)
    np.testing.assert_array_equal(read_state_dict(path)["w"], PLAIN.numpy())
    # What torch reads.
    monkeypatch.setattr(torch, "load", lambda *_, **__: {"model": {"w": PLAIN}, "about": depths})
    path = saved(path, {"w": torch.ones(1).expand(3)}, form)
    assert [*read_state_dict(path)] == ["w"]


def test_programs_of_torchscript_are_named(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.jit is deprecated
        torch.jit.trace(torch.nn.Linear(4, 3), PLAIN).save(str(tmp_path / "a.pt"))
    with pytest.raises(ValueError, match=r"a\.pt is a program of TorchScript.*save its weights"):
        read_state_dict(tmp_path / "a.pt")


@pytest.mark.parametrize("name", ["resnet18", "vit_b_16"])
@pytest.mark.parametrize("shape", [(), (1,), (0,)])
def test_tensors_of_other_ranks_do_not_fit(tmp_path, name, shape):
    info = registry.network(name)
    wanted = shapes(abstract_variables(info.build(num_classes=info.num_classes)))
    path = saved(tmp_path / "a.pth", {key: torch.zeros(shape) for key in wanted})
    with pytest.raises(StateDictMismatch, match="misshapen"):
        load(name, weights=path)
    assert recognise(path) == ()

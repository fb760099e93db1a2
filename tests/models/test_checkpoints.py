"""State dicts: files, and strict porting to Flax variables and back."""

import hashlib
import json
import pickle
import struct
import sys

import chex
import jax
import ml_dtypes
import numpy as np
import pytest
import safetensors.torch
import torch

from lmjax.models import checkpoints, registry
from lmjax.models.checkpoints import StateDictMismatch
from tests.support.torch_reference import build, randomised, state_dict


@pytest.fixture(scope="module")
def target():
    return checkpoints.abstract_variables(registry.network("resnet18").build(num_classes=10))


@pytest.fixture(scope="module")
def resnet():
    return state_dict(build("resnet18", seed=0, num_classes=10))


@pytest.fixture
def weights(resnet):
    return dict(resnet)


@pytest.fixture(scope="module")
def model():
    """A network small enough to be written dozens of times."""
    torch.manual_seed(0)
    layers = torch.nn.Conv2d(3, 16, 3), torch.nn.BatchNorm2d(16), torch.nn.Linear(16, 100)
    return randomised(torch.nn.Sequential(*layers), seed=0)


def same(first, second):
    assert first.keys() == second.keys()
    for key in first:
        assert first[key].dtype == second[key].dtype
        np.testing.assert_array_equal(first[key], second[key], err_msg=key)


def without_counters(weights):
    return {k: v for k, v in weights.items() if not k.endswith("num_batches_tracked")}


def test_round_trip_keeps_every_bit(target, weights):
    variables = checkpoints.to_variables(weights, target)
    chex.assert_trees_all_equal_shapes_and_dtypes(variables, target)
    same(checkpoints.to_state_dict(variables), without_counters(weights))


@pytest.mark.parametrize("name", ["resnet18", "resnext50_32x4d"])
def test_torch_takes_back_what_it_gave(name):
    given = build(name, seed=0)
    target = checkpoints.abstract_variables(registry.network(name).build())
    variables = checkpoints.to_variables(state_dict(given), target)
    variables = jax.tree.map(jax.numpy.asarray, variables)  # as a classifier holds them
    back = build(name, seed=1)
    tensors = {k: torch.tensor(v) for k, v in checkpoints.to_state_dict(variables).items()}
    back.load_state_dict(tensors, strict=True)
    same(without_counters(state_dict(back)), without_counters(state_dict(given)))


def test_kernels_are_transposed_as_each_layer_needs(target, weights):
    params = checkpoints.to_variables(weights, target)["params"]
    kernel = weights["layer2.0.conv1.weight"]
    assert params["layer2.0"]["conv1"]["kernel"][2, 0, 5, 9] == kernel[9, 5, 2, 0]
    assert params["fc"]["kernel"][7, 3] == weights["fc.weight"][3, 7]


def test_everything_that_does_not_fit_is_in_one_error(target, weights):
    del weights["layer1.0.conv1.weight"], weights["bn1.running_var"]
    weights["layer9.conv.weight"] = np.zeros(3, np.float32)
    weights["layer2.0.bn1.bias"] = np.zeros(5, np.float32)
    weights["layer3.0.conv1.weight"] = weights["layer3.0.conv1.weight"].transpose(2, 3, 1, 0)
    with pytest.raises(StateDictMismatch) as error:
        checkpoints.to_variables(weights, target, source="weights.pth")
    assert set(error.value.missing) == {"layer1.0.conv1.weight", "bn1.running_var"}
    assert error.value.surplus == ["layer9.conv.weight"]
    assert error.value.misshapen == {
        "layer2.0.bn1.bias": ((5,), (128,)),
        "layer3.0.conv1.weight": ((3, 3, 128, 256), (256, 128, 3, 3)),
    }
    message = str(error.value)
    assert message.startswith("weights.pth does not fit the network: 2 missing: ")
    for key in (*error.value.missing, *error.value.surplus):
        assert key in message
    assert "layer2.0.bn1.bias [5] instead of [128]" in message
    assert "load it with" not in message


def test_every_key_is_named_and_a_short_message_stays_readable(target):
    with pytest.raises(StateDictMismatch, match="102 missing: ") as error:
        checkpoints.to_variables({}, target)
    assert len(error.value.missing) == 102
    assert all(key in str(error.value) for key in error.value.missing)
    assert error.value.short.endswith(", and 92 more")
    assert len(error.value.short) < 500


@pytest.mark.parametrize(
    ("options", "in_channels", "hint"),
    [
        ({"num_classes": 12}, 3, r"load it with num_classes=10 \(now 12\)$"),
        ({}, 4, r"load it with in_channels=3 \(now 4\)$"),
        ({"num_classes": 2}, 1, r"num_classes=10 \(now 2\)$"),
    ],
)
def test_other_class_or_channel_count_is_recognised(weights, options, in_channels, hint):
    module = registry.network("resnet18").build(**{"num_classes": 10, **options})
    target = checkpoints.abstract_variables(module, in_channels=in_channels)
    with pytest.raises(StateDictMismatch, match=hint) as error:
        checkpoints.to_variables(weights, target)
    assert ("in_channels=3" in error.value.hint) == (in_channels != 3)


def test_no_hint_when_more_than_the_head_differs(weights):
    target = checkpoints.abstract_variables(registry.network("resnet18_digits").build())
    with pytest.raises(StateDictMismatch) as error:
        checkpoints.to_variables(weights, target)
    assert error.value.hint == ""


def test_quantised_weights_are_refused(target, weights):
    weights["conv1.weight"] = weights["conv1.weight"].astype(np.int8)
    with pytest.raises(ValueError, match=r"conv1.weight in state dict is int8: quantised"):
        checkpoints.to_variables(weights, target)


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".ckpt", ".safetensors"])
def test_files_of_every_kind(model, tmp_path, suffix):
    path = tmp_path / f"weights{suffix}"
    if suffix == ".safetensors":
        safetensors.torch.save_file(model.state_dict(), path)
    else:
        torch.save(model.state_dict(), path)
    same(checkpoints.read_state_dict(path), state_dict(model))
    assert checkpoints.read_metadata(path) == {}


def test_old_torch_files(model, tmp_path):
    path = tmp_path / "weights.pth"
    torch.save(model.state_dict(), path, _use_new_zipfile_serialization=False)
    same(checkpoints.read_state_dict(path), state_dict(model))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_other_precisions_become_float32(model, tmp_path, dtype, suffix):
    stored = {k: v.to(dtype) if v.is_floating_point() else v for k, v in model.state_dict().items()}
    path = tmp_path / f"weights{suffix}"
    (torch.save if suffix == ".pth" else safetensors.torch.save_file)(stored, path)
    expected = {
        k: v.float().numpy() if v.is_floating_point() else v.numpy() for k, v in stored.items()
    }
    same(checkpoints.read_state_dict(path), expected)


def of_robustness(weights):
    """As the robustness library saves its `AttackerModel`, within `DataParallel`."""
    statistics = {"new_mean": torch.zeros(3, 1, 1), "new_std": torch.ones(3, 1, 1)}
    return {
        **{f"module.normalizer.{k}": v for k, v in statistics.items()},
        **{f"module.model.{k}": v for k, v in weights.items()},
        **{f"module.attacker.normalize.{k}": v for k, v in statistics.items()},
        **{f"module.attacker.model.{k}": torch.zeros_like(v) for k, v in weights.items()},
    }


@pytest.mark.parametrize(
    "wrap",
    [
        lambda weights: {"state_dict": weights, "epoch": 3},
        lambda weights: {"model": weights, "optimizer": {"lr": 0.1}},
        lambda weights: {f"module.{k}": v for k, v in weights.items()},
        lambda weights: {"state_dict": {f"model.module.{k}": v for k, v in weights.items()}},
        lambda weights: {"model": of_robustness(weights), "epoch": 3, "optimizer": {}},
    ],
    ids=["state_dict", "model", "module.", "model.module.", "robustness"],
)
def test_common_wrappings_are_removed(model, tmp_path, wrap):
    torch.save(wrap(model.state_dict()), tmp_path / "weights.pth")
    same(checkpoints.read_state_dict(tmp_path / "weights.pth"), state_dict(model))


def test_prefix_of_some_keys_stays(tmp_path):
    weights = {"module.a": np.zeros(2, np.float32), "b": np.ones(3, np.float32)}
    checkpoints.save_safetensors(tmp_path / "weights.safetensors", weights)
    same(checkpoints.read_state_dict(tmp_path / "weights.safetensors"), weights)


@pytest.mark.parametrize(
    ("average", "last"), [("state_dict_ema", "state_dict"), ("model_ema", "model")]
)
def test_moving_averages_are_taken_as_timm_does(tmp_path, average, last):
    path = tmp_path / "last.pth"
    torch.save({"epoch": 3, last: {"a": torch.zeros(2)}, average: {"a": torch.ones(2)}}, path)
    with pytest.warns(UserWarning, match=f"moving average .*{average}.* last weights .{last}"):
        same(checkpoints.read_state_dict(path), {"a": np.ones(2, np.float32)})
    same(checkpoints.read_state_dict(path, ema=False), {"a": np.zeros(2, np.float32)})


def test_a_moving_average_that_is_none_is_none(tmp_path):
    path = tmp_path / "last.pth"
    torch.save({"state_dict": {"a": torch.zeros(2)}, "state_dict_ema": None}, path)
    same(checkpoints.read_state_dict(path), {"a": np.zeros(2, np.float32)})


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_weights_that_are_not_finite_are_not_written(tmp_path, bad):
    """A training that diverged in its last step, or float16 too narrow for a weight."""
    weights = {"a": np.ones(2), "b.weight": np.array([1.0, bad], np.float32)}
    with pytest.raises(ValueError, match=r"1 of 2 tensors hold NaN or infinity: b\.weight"):
        checkpoints.save_safetensors(tmp_path / "weights.safetensors", weights)
    assert not list(tmp_path.iterdir())


def test_safetensors_need_no_torch(model, tmp_path, monkeypatch):
    path = tmp_path / "weights.safetensors"
    monkeypatch.setitem(sys.modules, "torch", None)  # importing it fails
    checkpoints.save_safetensors(path, state_dict(model))
    same(checkpoints.read_state_dict(path), state_dict(model))


@pytest.mark.parametrize("zipped", [True, False])
def test_plain_state_dicts_need_no_torch(model, tmp_path, monkeypatch, zipped):
    path = tmp_path / "weights.pth"
    torch.save(model.state_dict(), path, _use_new_zipfile_serialization=zipped)
    monkeypatch.setitem(sys.modules, "torch", None)
    same(checkpoints.read_state_dict(path), state_dict(model))


def test_for_other_files_the_error_says_how_to_get_torch(tmp_path, monkeypatch):
    torch.save(torch.nn.Linear(2, 3), tmp_path / "weights.pth")
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(ValueError, match=r'pip install "lmjax\[torch\]"'):
        checkpoints.read_state_dict(tmp_path / "weights.pth")


class Trap:
    """Unpickling it runs code."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


@pytest.mark.parametrize("protocol", [None, 2, 4])
def test_code_in_a_checkpoint_is_not_run(tmp_path, protocol):
    path, trap = tmp_path / "weights.pth", tmp_path / "sprung"
    content = {"weight": Trap(trap)}
    if protocol is None:
        torch.save(content, path)
    else:
        path.write_bytes(pickle.dumps(content, protocol=protocol))
    with pytest.raises(ValueError, match=str(path)) as error:
        checkpoints.read_state_dict(path)
    assert not trap.exists()
    assert "holds io.open beside tensors" in str(error.value)
    assert "weights_only" not in str(error.value)  # torch advises to switch it off


def test_whole_models_are_refused(tmp_path):
    path = tmp_path / "model.pt"
    torch.save(torch.nn.Linear(2, 3), path)
    with pytest.raises(ValueError, match=r"torch.save\(model.state_dict\(\), path\)"):
        checkpoints.read_state_dict(path)


@pytest.mark.parametrize("content", [[torch.ones(2)], {"a": 1}, torch.ones(2)], ids=str)
def test_no_state_dict(tmp_path, content):
    torch.save(content, tmp_path / "weights.pth")
    with pytest.raises(ValueError, match="holds no state dict"):
        checkpoints.read_state_dict(tmp_path / "weights.pth")


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"\n<!DOCTYPE html><title>Sign in</title>", "is a web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n", "git lfs pull"),
        (b"PK\x03\x04" + bytes(1000), "cannot be read as a checkpoint"),
        (np.random.default_rng(0).bytes(1000), "cannot be read as a checkpoint"),
        (b"\x10\0\0\0\0\0\0\0" + b'{"a": "b"}      ' + bytes(40), "cannot be read as a checkpoint"),
    ],
    ids=["empty", "html", "lfs", "zip", "noise", "header"],
)
def test_files_of_another_kind(tmp_path, suffix, content, message):
    path = tmp_path / f"weights{suffix}"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message) as error:
        checkpoints.read_state_dict(path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("share", [0.0001, 0.01, 0.5, 0.99, 0.999999])
def test_truncated_files(model, tmp_path, suffix, share):
    path = tmp_path / f"weights{suffix}"
    (torch.save if suffix == ".pth" else safetensors.torch.save_file)(model.state_dict(), path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(ValueError, match=f"{path} .*fetch it again") as error:
        checkpoints.read_state_dict(path)
    assert "\n" not in str(error.value)


def test_other_file_names_and_missing_files(tmp_path):
    with pytest.raises(ValueError, match=r"\.safetensors, \.pth, \.pt, \.ckpt; got .*weights\.h5"):
        checkpoints.read_state_dict(tmp_path / "weights.h5")
    with pytest.raises(FileNotFoundError, match=r"weights\.pth"):
        checkpoints.read_state_dict(tmp_path / "weights.pth")


def test_half_precision_can_be_stored(tmp_path):
    path = tmp_path / "weights.safetensors"
    values = np.linspace(0, 1, 11)
    for dtype in (np.float16, ml_dtypes.bfloat16):
        checkpoints.save_safetensors(path, {"a": values.astype(dtype)})
        expected = values.astype(dtype).astype(np.float32)
        same(checkpoints.read_state_dict(path), {"a": expected})
    assert path.stat().st_size < 200


def test_views_are_stored_as_they_look(tmp_path):
    path = tmp_path / "weights.safetensors"
    values = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    views = {"transposed": values.T, "strided": values[:, ::2], "reversed": values[::-1]}
    checkpoints.save_safetensors(path, views)
    same(checkpoints.read_state_dict(path), views)
    same(safetensors.torch.load_file(path), {k: torch.tensor(v.copy()) for k, v in views.items()})


def test_same_content_same_bytes(model, tmp_path):
    digests = set()
    for i in range(5):
        path = tmp_path / f"{i}.safetensors"
        metadata = {"source": "a.pth", "sha256": "ff", "accuracy": 0.5, "list": [1, 2]}
        checkpoints.save_safetensors(path, state_dict(model), metadata=metadata)
        assert checkpoints.read_metadata(path) == metadata
        digests.add(hashlib.sha256(path.read_bytes()).hexdigest())
    assert len(digests) == 1


def test_failed_write_keeps_the_old_file(model, tmp_path):
    path = tmp_path / "weights.safetensors"
    checkpoints.save_safetensors(path, state_dict(model))
    before = path.read_bytes()
    with pytest.raises(BaseException):  # noqa: B017, PT011  (whatever safetensors raises)
        checkpoints.save_safetensors(path, {"a": np.array([object()])})
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_more_axes_than_numpy_has_are_damage(tmp_path):
    path = tmp_path / "a.safetensors"
    header = {"a": {"dtype": "F32", "shape": [1] * 70, "data_offsets": [0, 4]}}
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + b"\0" * 4)
    with pytest.raises(ValueError, match=r"a\.safetensors .*maximum supported dimension"):
        checkpoints.read_state_dict(path)

"""Checkpoints: torch state dicts, in files and as Flax variables.

A *state dict* maps torch's key (`layer1.0.conv1.weight`) to a NumPy array in torch's layout. Flax
variables are `{"params": ..., "batch_stats": ...}`, nested by the submodules' names, which are
torch's too. So porting is one table of leaves and a transposition of kernels:

| Flax leaf | torch leaf | layout |
|---|---|---|
| kernel | weight | HWIO <- OIHW, or IO <- OI |
| scale | weight | |
| bias | bias | |
| mean, var | running_mean, running_var | |
| layer_scale | layer_scale | 11C <- C11 |
| in_proj_kernel, in_proj_bias | in_proj_weight, in_proj_bias | IO <- OI |
| class_token, encoder.pos_embedding | the same | 1TC, as in torch |

Porting is strict both ways: nothing is re-initialised, dropped or reshaped in silence. Only torch's
counter `num_batches_tracked` is ignored: evaluation does not use it.
"""

import functools
import hashlib
import json
import math
import os
import pickle
import re
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from lmjax._utils.atomic import atomic_write
from lmjax.models import torch_files

TORCH_SUFFIXES = (".pth", ".pt", ".ckpt")
SUFFIXES = (".safetensors", *TORCH_SUFFIXES)

_TORCH_LEAVES = {
    "kernel": "weight",
    "scale": "weight",
    "bias": "bias",
    "mean": "running_mean",
    "var": "running_var",
    "layer_scale": "layer_scale",
    "in_proj_kernel": "in_proj_weight",
    "in_proj_bias": "in_proj_bias",
    "class_token": "class_token",
    "encoder.pos_embedding": "encoder.pos_embedding",
}
_AS_IN_TORCH = ("class_token", "encoder.pos_embedding")
_IGNORED = "num_batches_tracked"
# Keys under which training scripts save a state dict, and a moving average of it.
_WRAPPERS = ("state_dict", "model")
_AVERAGES = ("state_dict_ema", "model_ema")
_PREFIXES = ("module.", "model.", "_orig_mod.")  # DataParallel, Lightning, torch.compile
# What stands beside `model.` in checkpoints of the `robustness` library (Engstrom et al. 2019): an
# attacker's copy of the network, and statistics of the training set, for ImageNet the usual ones.
_BESIDE_MODEL = ("attacker.", "normalizer.")
_METADATA_KEY = "lmjax"


class StateDictMismatch(ValueError):
    """A state dict that does not fit the network.

    The message names every key; `short` names the first ten of each kind.

    Attributes:
      source: where the state dict came from.
      missing: keys the network needs and the state dict lacks.
      surplus: keys the network has no place for.
      misshapen: key -> (shape in the state dict, shape in the network), in torch's layout.
      hint: what to change, where that is known; else empty.
      short: the message for one line of a terminal.
    """

    def __init__(
        self,
        source: str,
        missing: list[str],
        surplus: list[str],
        misshapen: dict[str, tuple[tuple[int, ...], tuple[int, ...]]],
        hint: str = "",
    ):
        self.source = source
        self.missing = missing
        self.surplus = surplus
        self.misshapen = misshapen
        self.hint = hint or _hint(missing, surplus, misshapen)
        self.short = self._message(most=10)
        super().__init__(self._message(most=None))

    @property
    def num_classes(self) -> int | None:
        """The classes of the state dict, where the network differs in their number alone."""
        pairs = self.misshapen.values()
        found, wanted = ({each[i][:1] for each in pairs} for i in (0, 1))
        if self.missing or self.surplus or len(found) != 1 or len(wanted) != 1:
            return None
        if any(shape[1:] != wanted[1:] for shape, wanted in pairs):
            return None
        return next(iter(found.pop()), None)

    def _message(self, most: int | None) -> str:
        shapes = [f"{k} {list(s)} instead of {list(w)}" for k, (s, w) in self.misshapen.items()]
        kinds = {"missing": self.missing, "surplus": self.surplus, "misshapen": shapes}
        problems = (
            f"{len(keys)} {kind}: {_listed(keys, most)}" for kind, keys in kinds.items() if keys
        )
        message = f"{self.source} does not fit the network: " + "; ".join(problems)
        return f"{message}. {self.hint}" if self.hint else message


def _listed(keys: list[str], most: int | None) -> str:
    more = len(keys) - len(keys[:most])
    return ", ".join(keys[:most]) + (f", and {more} more" if more else "")


def _hint(missing, surplus, misshapen) -> str:
    """Advice on what to change, where only the number of classes or of input channels differs."""
    if missing or surplus:
        return ""
    options, explained = [], set()
    for key, (shape, wanted) in misshapen.items():
        # A dense layer, or a 1x1 convolution in its place.
        if len(shape) > 1 and shape[1:] == wanted[1:] and shape[2:] in ((), (1, 1)):
            options.append(f"num_classes={shape[0]} (now {wanted[0]})")
            explained |= {key, key.removesuffix("weight") + "bias"}
        elif len(shape) == len(wanted) == 4 and shape[:1] + shape[2:] == wanted[:1] + wanted[2:]:
            options.append(f"in_channels={shape[1]} (now {wanted[1]})")
            explained.add(key)
        elif key.endswith("pos_embedding") and len(shape) == 3 and shape[1] > 1:
            patches = [math.isqrt(each[1] - 1) for each in (shape, wanted)]
            options.append(
                "a preprocessing= whose crop is {} patches wide (now {})".format(*patches)
            )
            explained.add(key)
    if len(options) > 2 or set(misshapen) - explained:
        return ""
    return f"Everything else fits: load it with {' and '.join(options)}"


def read_state_dict(path: str | os.PathLike, *, ema: bool = True) -> dict[str, np.ndarray]:
    """Reads the state dict in a file.

    A dict under `"state_dict"` or `"model"`, as training scripts save it, is unwrapped; where a
    moving average of the weights lies beside it (`"state_dict_ema"`, `"model_ema"`), that is taken,
    as timm does, with a warning. A prefix that all keys share (`module.`, `model.`, `_orig_mod.`)
    is removed; so is what the `robustness` library saves beside the network (`attacker.`, a copy of
    it, and `normalizer.`). Half and double precision become float32; integers stay as they are.

    Args:
      path: a `.safetensors` file, read without torch; or a `.pth`, `.pt` or `.ckpt` file, read by
        `torch.load(weights_only=True)`, which never runs code from the file.
      ema: take a moving average where there is one; False takes the last weights.

    Returns:
      torch's keys -> arrays in torch's layout.

    Raises:
      FileNotFoundError: no such file.
      ValueError: another suffix, a damaged file, one that holds more than tensors; or torch
        is needed and not installed.
    """
    path = _check_file(path)
    if path.suffix == ".safetensors":
        state_dict = _read_safetensors(path)
    else:
        state_dict = _read_torch(path, _AVERAGES if ema else ())
    return {key: _to_float32(value) for key, value in _strip_prefix(state_dict).items()}


def read_metadata(path: str | os.PathLike) -> dict[str, Any]:
    """Reads the metadata that `save_safetensors` wrote into a file; `{}` for any other file."""
    from safetensors import SafetensorError, safe_open

    path = _check_file(path)
    if path.suffix != ".safetensors":
        return {}
    try:
        with safe_open(path, framework="np") as file:
            metadata = json.loads((file.metadata() or {}).get(_METADATA_KEY, "{}"))
    except (SafetensorError, ValueError) as error:
        raise ValueError(_damaged(path, error)) from error
    return metadata if isinstance(metadata, dict) else {}


def save_safetensors(
    path: str | os.PathLike,
    state_dict: Mapping[str, np.ndarray],
    *,
    metadata: Mapping[str, Any] | None = None,
) -> None:
    """Writes a state dict to a `.safetensors` file, whole or not at all.

    The same content gives the same bytes.

    Args:
      path: of the file; its folder must exist.
      state_dict: torch's keys -> arrays, stored in their own precision.
      metadata: what JSON can hold; `read_metadata` gives it back.

    Raises:
      ValueError: NaN or infinity in a tensor.
    """
    from safetensors.numpy import save

    check_finite(state_dict)

    # safetensors writes several metadata entries in random order, so they go into one.
    entry = {_METADATA_KEY: json.dumps(dict(metadata or {}), sort_keys=True)}
    # It also writes the memory of an array as it lies, ignoring its strides.
    tensors = {
        key: np.ascontiguousarray(value).reshape(value.shape) for key, value in state_dict.items()
    }
    with atomic_write(path) as temporary:
        temporary.write_bytes(save(tensors, metadata=entry))  # save_file would make it private


def check_finite(state_dict: Mapping[str, np.ndarray]) -> None:
    """Raises ValueError, with the names of tensors that hold NaN or infinity, if there are any."""
    bad = [key for key, value in state_dict.items() if not np.isfinite(value).all()]
    if bad:
        named = ", ".join(bad[:5]) + (f" and {len(bad) - 5} more" if len(bad) > 5 else "")
        raise ValueError(
            f"weights must be finite numbers, {len(bad)} of {len(state_dict)} tensors hold NaN or "
            f"infinity: {named}; the training diverged, or float16 is too narrow for them"
        )


def rename(
    state_dict: Mapping[str, np.ndarray], rules: Sequence[tuple[str, str | None]]
) -> dict[str, np.ndarray]:
    """Renames the keys of a state dict, as published files of some networks need it.

    Args:
      state_dict: torch's keys -> arrays.
      rules: regular expression -> what takes the place of what it finds; None drops the key.
    """
    renamed = {}
    for key, value in state_dict.items():
        for pattern, replacement in rules:
            if key is not None and re.search(pattern, key):
                key = None if replacement is None else re.sub(pattern, replacement, key)
        if key is not None:
            renamed[key] = value
    return renamed


def to_variables(
    state_dict: Mapping[str, np.ndarray],
    target: Mapping[str, Any],
    *,
    source: str | os.PathLike = "state dict",
) -> dict[str, Any]:
    """Converts a state dict to the Flax variables of a network.

    Args:
      state_dict: torch's keys -> arrays.
      target: the network's variables, or their shapes and dtypes: `abstract_variables(module)`.
      source: name of the state dict in errors.

    Returns:
      Variables of the structure, shapes and dtypes of `target`; NumPy arrays, which may be views.

    Raises:
      StateDictMismatch: (a ValueError) missing, surplus or misshapen keys, all of them at once.
      ValueError: weights that are not floating-point numbers.
    """
    from flax.traverse_util import flatten_dict, unflatten_dict

    flat: dict[Any, Any] = flatten_dict(target)
    leaves = {_torch_key(path): (path, leaf) for path, leaf in flat.items()}
    state_dict = fitting(state_dict, shapes(target), source=source)
    for key, value in state_dict.items():
        if _is_floating(leaves[key][1]) and not _is_floating(value):
            raise ValueError(f"{key} in {source} is {value.dtype}: quantised weights are not read")
    return unflatten_dict(
        {
            path: _to_flax(path, state_dict[key]).astype(leaf.dtype)
            for key, (path, leaf) in leaves.items()
        }
    )


def shapes(target: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """Returns the shapes of a network's state dict by key, in torch's layout.

    Args:
      target: as in `to_variables`.
    """
    from flax.traverse_util import flatten_dict

    leaves: dict[Any, Any] = flatten_dict(target)
    return {_torch_key(path): _torch_shape(path, leaf.shape) for path, leaf in leaves.items()}


def fitting(
    state_dict: Mapping[str, Any],
    wanted: Mapping[str, tuple[int, ...]],
    *,
    source: str | os.PathLike,
) -> dict[str, Any]:
    """Returns a state dict without torch's counters, once its keys and shapes are those wanted.

    Args:
      state_dict: torch's keys -> arrays.
      wanted: keys -> shapes; counters in it are not asked for.
      source: name of the state dict in errors.

    Raises:
      StateDictMismatch: (a ValueError) missing, surplus or misshapen keys, all of them at once.
    """
    found = {key: value for key, value in state_dict.items() if not _is_counter(key)}
    wanted = {key: shape for key, shape in wanted.items() if not _is_counter(key)}
    found = _with_prefix_of(wanted, found)
    missing = [key for key in wanted if key not in found]
    surplus = [key for key in found if key not in wanted]
    misshapen = {
        key: (tuple(found[key].shape), shape)
        for key, shape in wanted.items()
        if key in found and tuple(found[key].shape) != shape
    }
    if missing or surplus or misshapen:
        raise StateDictMismatch(str(source), missing, surplus, misshapen)
    return found


def _with_prefix_of(wanted: Mapping[str, Any], found: dict[str, Any]) -> dict[str, Any]:
    """Puts back a prefix that `read_state_dict` removes, where it is the network's own."""
    own = dict(zip(_strip_prefix(dict.fromkeys(wanted)), wanted))
    if len(own) < len(wanted) or not own.keys().isdisjoint(wanted):
        return found
    return {own.get(key, key): value for key, value in found.items()}


def _is_counter(key: str) -> bool:
    return key.split(".")[-1] == _IGNORED


def to_state_dict(variables: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Converts Flax variables to a state dict with torch's keys; the reverse of `to_variables`.

    Every bit is kept, and torch's `load_state_dict(..., strict=True)` takes the result.
    """
    from flax.traverse_util import flatten_dict

    leaves = flatten_dict(variables)
    return {_torch_key(path): _to_torch(path, np.asarray(leaf)) for path, leaf in leaves.items()}


def weights_sha256(variables: Any) -> str:
    """Returns the sha256 over all arrays of a pytree, such as a classifier's variables."""
    import jax

    digest = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path(variables):
        digest.update(jax.tree_util.keystr(path).encode())
        digest.update(np.asarray(leaf).tobytes())
    return digest.hexdigest()


def abstract_variables(module, *, in_channels: int = 3) -> dict[str, Any]:
    """Returns the shapes and dtypes of a network's variables; nothing is computed.

    Equal modules are traced once.

    Args:
      module: an `lmjax.models.layers.Network`.
      in_channels: channels of its images.
    """
    import jax

    try:
        hash(module)
    except TypeError:  # a list or an array is among its fields
        return trace_variables(module, in_channels=in_channels)
    found = _abstract_variables(module, in_channels, jax.config.read("jax_enable_x64"))
    return jax.tree.map(lambda leaf: leaf, found)  # dicts of the caller's own


@functools.lru_cache(maxsize=64)  # recognising a file and loading it ask for the same networks
def _abstract_variables(module, in_channels: int, x64: bool) -> dict[str, Any]:
    """As `trace_variables`, once for equal modules; types of variables can depend on `x64`."""
    return trace_variables(module, in_channels=in_channels)


def trace_variables(module, *, in_channels: int = 3) -> dict[str, Any]:
    """Returns what `abstract_variables` does, by a trace of its own."""
    import jax
    import jax.numpy as jnp

    from lmjax.masking.masked import Masked

    size = module.image_size or 64  # where there is none, any size gives the same
    images = jax.ShapeDtypeStruct((1, size, size, in_channels), jnp.float32)
    return jax.eval_shape(lambda x: module.init(jax.random.key(0), Masked(x)), images)


def count_parameters(variables: Mapping[str, Any]) -> int:
    """Returns the number of parameters, without statistics, in a network's variables or shapes."""
    import jax

    return sum(math.prod(np.shape(leaf)) for leaf in jax.tree.leaves(variables.get("params", {})))


def _torch_key(path: tuple[str, ...]) -> str:
    leaf = path[-1] if _is_as_in_torch(path) else _TORCH_LEAVES[path[-1]]
    return ".".join((*path[1:-1], leaf))


def _is_as_in_torch(path: tuple[str, ...]) -> bool:
    """Whether a leaf keeps its name and shape.

    So do those of networks that are functions, whose variables are not nested.
    """
    return len(path) == 2 or path[-1] in _AS_IN_TORCH or path[-1] not in _TORCH_LEAVES


def _torch_shape(path: tuple[str, ...], shape: tuple[int, ...]) -> tuple[int, ...]:
    if _is_as_in_torch(path):
        return shape
    return (*shape[:-3:-1], *shape[:-2])  # HWIO -> OIHW, IO -> OI, O -> O


def _to_torch(path: tuple[str, ...], leaf: np.ndarray) -> np.ndarray:
    if _is_as_in_torch(path):
        return leaf
    return leaf.transpose(3, 2, 0, 1) if leaf.ndim == 4 else leaf.T


def _to_flax(path: tuple[str, ...], value: np.ndarray) -> np.ndarray:
    if _is_as_in_torch(path):
        return value
    return value.transpose(2, 3, 1, 0) if value.ndim == 4 else value.T


def _is_floating(value: Any) -> bool:
    return value.dtype.kind == "f" or value.dtype.name == "bfloat16"


def _to_float32(value: np.ndarray) -> np.ndarray:
    return value.astype(np.float32, copy=False) if _is_floating(value) else value


def _check_file(path: str | os.PathLike) -> Path:
    """The path, of a file that may be a checkpoint by its name and its first bytes."""
    path = Path(path)
    if path.suffix not in SUFFIXES:
        raise ValueError(f"weights must be a file {', '.join(SUFFIXES)}; got {path}")
    with open(path, "rb") as file:
        head = file.read(256).lstrip().lower()
    if not head:
        raise ValueError(f"{path} is empty; fetch it again")
    if head.startswith((b"<!doctype", b"<html", b"<?xml")):
        raise ValueError(f"{path} is a web page, not a checkpoint; fetch the file itself")
    if head.startswith(b"version https://git-lfs"):
        raise ValueError(f"{path} is a pointer of git LFS, not the file; run `git lfs pull`")
    return path


def _read_safetensors(path: Path) -> dict[str, np.ndarray]:
    import ml_dtypes  # noqa: F401  (teaches NumPy the name bfloat16)
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        return load_file(path)
    except (SafetensorError, AttributeError, TypeError, ValueError) as error:
        # Of NumPy: types that it does not know, more axes than it has.
        raise ValueError(_damaged(path, error)) from error


def _read_torch(path: Path, averages: tuple[str, ...]) -> dict[str, np.ndarray]:
    """Reads a file of torch: plain ones here, odd ones by torch, where it is installed.

    Args:
      path: of the file.
      averages: keys of moving averages, which are taken first.
    """
    try:
        content = torch_files.read(path)
    except torch_files.NotPlainError as error:
        content = _read_by_torch(path, error.name)
    except ValueError as error:
        raise ValueError(_damaged(path, error)) from error
    for wrapper in (*averages, *_WRAPPERS):
        if isinstance(content, dict) and isinstance(content.get(wrapper), dict):
            others = [key for key in _WRAPPERS if isinstance(content.get(key), dict)]
            content = content[wrapper]
            if wrapper in averages and others:
                _say_averaged(path, wrapper, others[0])
    if isinstance(content, dict):
        _check_readable(path, content)
    if not isinstance(content, dict) or not all(
        isinstance(value, np.ndarray) for value in content.values()
    ):
        raise ValueError(
            f"{path} holds no state dict (a dict of tensors, by itself or under one of the keys "
            f"{', '.join(_WRAPPERS)}); save model.state_dict()"
        )
    return {str(key): value for key, value in content.items()}


def _check_readable(path: Path, content: dict) -> None:
    """Raises ValueError where a tensor of a state dict is no plain array of numbers."""
    for key, value in content.items():
        if isinstance(value, _Unread):
            raise ValueError(
                f"{path} holds {value.kind} as {key}; only plain tensors of numbers are read: save "
                "it with dense ones, such as tensor.to_dense() or tensor.dequantize() gives"
            )


class _Unread(NamedTuple):
    """Stands for a tensor that is not read.

    Attributes:
      kind: of the tensor, with an article.
    """

    kind: str


def _say_averaged(path: Path, taken: str, other: str) -> None:
    warnings.warn(
        f"{path} holds a moving average of the weights ({taken}), which is taken, as timm does; "
        f"for the last weights ({other}): lmjax convert {path} weights.safetensors --no-ema",
        UserWarning,
        stacklevel=2,
    )


def _read_by_torch(path: Path, name: str) -> Any:
    """Reads a file that holds more than tensors as torch does when it trusts nothing."""
    if name.startswith("__torch__"):
        raise ValueError(
            f"{path} is a program of TorchScript, not a state dict; where you trust it, save its "
            "weights alone: torch.save(torch.jit.load(path).state_dict(), path)"
        )
    refused = (
        f"{path} holds {name} beside tensors, and restoring Python objects could run any code. "
        "Where you trust the file, save its weights alone: torch.save(model.state_dict(), path)"
    )
    try:
        import torch
    except ImportError as error:
        raise ValueError(
            f'{refused}; or try torch, which reads more: pip install "lmjax[torch]"'
        ) from error
    try:
        # Warnings are guesses about damaged files; the error says it better.
        with warnings.catch_warnings(action="ignore"):
            content = torch.load(path, weights_only=True, map_location="cpu")
    except pickle.UnpicklingError as error:
        # torch's own message advises weights_only=False, which runs the file's code: not repeated.
        raise ValueError(refused) from error
    except Exception as error:  # torch raises a dozen types on damaged bytes
        raise ValueError(_damaged(path, error)) from error
    return torch_files.replaced(content, _array)


def _array(value: Any) -> Any:
    """Returns a NumPy array in the place of a tensor, or what stands for one that is not read."""
    import torch

    if not isinstance(value, torch.Tensor):
        return value
    kinds = {
        "a nested tensor": value.is_nested,
        "a quantised tensor": value.is_quantized,
        "a sparse tensor": value.layout != torch.strided,
        "a tensor without numbers (of the device meta)": value.is_meta,
    }
    for kind, found in kinds.items():
        if found:
            return _Unread(kind)
    tensor = value.detach().resolve_conj().resolve_neg()
    try:
        # NumPy alone has no bfloat16.
        return (tensor.float() if tensor.is_floating_point() else tensor).numpy()
    except (TypeError, RuntimeError):
        return _Unread(f"a tensor of {value.dtype}")


def _strip_prefix(state_dict: dict[str, Any]) -> dict[str, Any]:
    for prefix in _PREFIXES:
        if state_dict and all(key.startswith(prefix) for key in state_dict):
            return _strip_prefix({k.removeprefix(prefix): v for k, v in state_dict.items()})
    if all(key.startswith(("model.", *_BESIDE_MODEL)) for key in state_dict):
        alone = {k: v for k, v in state_dict.items() if k.startswith("model.")}
        return _strip_prefix(alone) if alone else state_dict
    return state_dict


def _damaged(path: Path, reason: Exception | str) -> str:
    reason = str(reason).strip().split("\n")[0][:200] or type(reason).__name__
    return (
        f"{path} ({path.stat().st_size} bytes) cannot be read as a checkpoint: {reason}. It is "
        "incomplete, damaged, or not what its name says; fetch it again"
    )

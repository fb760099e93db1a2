"""Networks of PyTorch: a module of one's own, or one of timm or torchvision by its name."""

import dataclasses
import importlib
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lmjax.models import checkpoints, registry
from lmjax.models.classifier import Classifier
from lmjax.models.functional import from_function
from lmjax.models.preprocessing import Preprocessing
from lmjax.models.pytorch import import_module

if TYPE_CHECKING:
    import torch

LIBRARIES = ("timm", "torchvision")

_CHANNELS_AND_SIZE = (3, 224)


def from_torch(
    module: "torch.nn.Module",
    example: Any = None,
    *,
    mean: Sequence[float] = (0.485, 0.456, 0.406),
    std: Sequence[float] = (0.229, 0.224, 0.225),
    class_names: Sequence[str] | None = None,
    preprocessing: Preprocessing | None = None,
) -> Classifier:
    """Makes a classifier of a PyTorch module, unmodified.

    The module is exported by `torch.export` and its graph runs in JAX, with the weights as a
    pytree; torch is not needed afterwards. Its answers are compared with torch's.

    Example:
      >>> module = timm.create_model("resnest14d", pretrained=True).eval()
      >>> classifier = lmjax.models.from_torch(module)
      >>> predictor = lmjax.Predictor(classifier, lmjax.LayerMasking())

    Args:
      module: takes images `[N, C, H, W]` and gives logits `[N, K]`; in evaluation mode.
      example: images of the size that the network is to take, a tensor or array, or their shape;
        None takes those of `preprocessing`, or `[1, 3, 224, 224]`.
      mean, std: of the training images, in [0, 1]; ImageNet's by default.
      class_names: one for each class, or None.
      preprocessing: in the place of `mean` and `std`; its crop is the size of the example.

    Returns:
      The classifier, for images of the example's size.

    Raises:
      ValueError: a module that cannot be exported, that is in training mode, or that uses an
        operation that is not known; each says which part of the module. An example that is no
        square image, or of another size than the preprocessing's.
      ImportError: torch is not installed.
    """
    shape = _shape(example, preprocessing)
    if preprocessing is None:
        resize = math.floor(shape[2] * 8 / 7)
        preprocessing = Preprocessing(resize, shape[2], mean=tuple(mean), std=tuple(std))
    if preprocessing.crop != shape[2]:
        raise ValueError(
            f"preprocessing crops to {preprocessing.crop} pixels, and the example has {shape[2]}"
        )
    graph, params = import_module(module, shape if example is None else example)
    classifier = from_function(
        graph,
        params,
        class_names=class_names,
        layout="NCHW",
        preprocessing=preprocessing,
    )
    module: Any = dataclasses.replace(classifier.module, image_size=shape[2])
    return dataclasses.replace(classifier, module=module)


def _shape(example: Any, preprocessing: Preprocessing | None) -> tuple[int, ...]:
    if example is None:
        channels, size = _CHANNELS_AND_SIZE
        if preprocessing is not None:
            channels, size = len(preprocessing.mean), preprocessing.crop or size
        return 1, channels, size, size
    shape = tuple(example.shape if hasattr(example, "shape") else example)
    if len(shape) != 4 or shape[2] != shape[3]:
        raise ValueError(f"example must be square images [N, C, H, W], or their shape; got {shape}")
    return tuple(map(int, shape))


def is_external(name: str) -> bool:
    """Returns whether a network's name is that of another library, such as `"timm:resnet18"`."""
    return isinstance(name, str) and name.partition(":")[0] in LIBRARIES and ":" in name


def load(
    name: str,
    *,
    weights: str | os.PathLike | None = None,
    num_classes: int | None = None,
    preprocessing: Preprocessing | None = None,
    class_names: Sequence[str] | None = None,
) -> Classifier:
    """Loads a network of timm or torchvision.

    Args:
      name: `"timm:NAME"` or `"torchvision:NAME"`.
      weights: a file of its state dict; None takes the library's own published weights, from its
        cache or its server.
      num_classes: of the weights in the file; None takes the library's default.
      preprocessing: None takes what the library states for the weights.
      class_names: None takes ImageNet's where there are 1000 classes.

    Raises:
      ValueError: no such network; weights that do not fit it; a network that cannot be imported.
      ImportError: the library is not installed, or cannot be imported.
    """
    library, _, network = name.partition(":")
    build = {"timm": _build_timm, "torchvision": _build_torchvision}[library]
    module, stated = build(network, pretrained=weights is None, num_classes=num_classes)
    if weights is not None:
        _load_weights(module, Path(weights), name)
    found = class_names
    if found is None and _count_classes(module, stated) == 1000:
        found = registry.class_names("imagenet")
    return from_torch(module.eval(), preprocessing=preprocessing or stated, class_names=found)


def _import(library: str) -> Any:
    try:
        return importlib.import_module(library)
    except ImportError as error:
        raise ImportError(
            f"networks of {library} need it installed: pip install torch {library}"
        ) from error
    except RuntimeError as error:
        raise ImportError(
            f"{library} cannot be imported ({' '.join(str(error).split())}); torch and torchvision "
            "must be builds of the same kind, for CPU or for one version of CUDA"
        ) from error


def _build_timm(name: str, *, pretrained: bool, num_classes: int | None) -> tuple[Any, Any]:
    timm = _import("timm")
    if not timm.is_model(name.split(".")[0]):
        raise ValueError(f"timm has no network {name!r}; timm.list_models() lists them")
    options = {} if num_classes is None else {"num_classes": num_classes}
    module = timm.create_model(name, pretrained=pretrained, **options)
    stated = timm.data.resolve_model_data_config(module)
    crop = stated["input_size"][-1]
    preprocessing = Preprocessing(
        resize=math.floor(crop / stated["crop_pct"]),
        crop=crop,
        interpolation=stated["interpolation"],
        mean=stated["mean"],
        std=stated["std"],
    )
    return module, preprocessing


def _build_torchvision(name: str, *, pretrained: bool, num_classes: int | None):
    models = _import("torchvision").models
    if name not in models.list_models():
        raise ValueError(
            f"torchvision has no network {name!r}; torchvision.models.list_models() lists them"
        )
    published = models.get_model_weights(name).DEFAULT
    options: dict[str, Any] = {"weights": published if pretrained else None}
    if name in ("googlenet", "inception_v3") and not pretrained:
        options["init_weights"] = False  # which takes minutes
    if num_classes is not None:
        options["num_classes"] = num_classes
    stated = published.transforms()
    preprocessing = Preprocessing(
        resize=stated.resize_size[0],
        crop=stated.crop_size[0],
        interpolation=stated.interpolation.value,
        mean=tuple(stated.mean),
        std=tuple(stated.std),
    )
    return models.get_model(name, **options), preprocessing


def _load_weights(module: Any, path: Path, name: str) -> None:
    import torch

    state = checkpoints.read_state_dict(path)
    tensors = {key: torch.from_numpy(np.array(value)) for key, value in state.items()}
    own = module.state_dict()
    tensors = {
        k: v for k, v in tensors.items() if k in own or not k.endswith("num_batches_tracked")
    }
    missing = [k for k in own if k not in tensors and not k.endswith("num_batches_tracked")]
    surplus = [k for k in tensors if k not in own]
    misshapen = {
        k: (tuple(v.shape), tuple(own[k].shape))
        for k, v in tensors.items()
        if k in own and v.shape != own[k].shape
    }
    if missing or surplus or misshapen:
        raise checkpoints.StateDictMismatch(f"{path} for {name}", missing, surplus, misshapen)
    module.load_state_dict(tensors, strict=False)


def _count_classes(module: Any, preprocessing: Preprocessing) -> int:
    import torch

    size, channels = preprocessing.crop or _CHANNELS_AND_SIZE[1], len(preprocessing.mean)
    with torch.no_grad():
        logits = module.eval()(torch.zeros(1, channels, size, size))
    return int(logits.shape[-1]) if hasattr(logits, "shape") else 0

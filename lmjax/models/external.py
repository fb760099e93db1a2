"""Networks of PyTorch: a module of one's own, or one of timm or torchvision by its name."""

import dataclasses
import importlib
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lmjax._utils.checks import check_whole
from lmjax._utils.text import one_line
from lmjax.models import checkpoints, registry
from lmjax.models.classifier import Classifier
from lmjax.models.functional import from_function
from lmjax.models.preprocessing import Preprocessing
from lmjax.models.pytorch import import_module

if TYPE_CHECKING:
    import torch

LIBRARIES = ("timm", "torchvision")

_SIZE = 224


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
    channels = len(preprocessing.mean if preprocessing is not None else mean)
    shape = _shape(example, channels, _SIZE if preprocessing is None else preprocessing.crop)
    if preprocessing is not None and preprocessing.crop != shape[2]:
        raise ValueError(
            f"preprocessing crops to {preprocessing.crop} pixels, and the example has {shape[2]}; "
            "the module takes images of the example's size, so both must be equal"
        )
    graph, params = import_module(module, shape if example is None else example)
    return from_function(
        graph,
        params,
        mean=mean,
        std=std,
        class_names=class_names,
        layout="NCHW",
        image_size=shape[2],
        preprocessing=preprocessing,
    )


def _shape(example: Any, channels: int, crop: int | None) -> tuple[int, ...]:
    """The shape of the example, or of what takes its place."""
    if example is None:
        return 1, channels, crop or _SIZE, crop or _SIZE
    shape = tuple(map(int, example.shape if hasattr(example, "shape") else example))
    if len(shape) != 4 or shape[2] != shape[3]:
        raise ValueError(
            f"example must be square images [N, C, H, W], or their shape; got shape {list(shape)}"
        )
    if shape[1] != channels:
        raise ValueError(
            f"example has {shape[1]} channels, and the mean {channels} numbers; give mean= and "
            "std= (or preprocessing=) with one for each channel"
        )
    return shape


def is_external(name: str) -> bool:
    """Returns whether a network's name is that of another library, such as `"timm:resnet18"`."""
    return isinstance(name, str) and name.startswith(tuple(f"{each}:" for each in LIBRARIES))


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
      ValueError: no such network, or none with published weights; weights that do not fit it, all
        keys named; a network that cannot be imported.
      FileNotFoundError: no such file.
      OSError: published weights that cannot be downloaded.
      ImportError: the library is not installed, or cannot be imported.
    """
    library, _, network = name.partition(":")
    build = {"timm": _build_timm, "torchvision": _build_torchvision}[library]
    options: dict[str, Any] = {}
    if num_classes is not None:
        options["num_classes"] = check_whole("num_classes", num_classes, least=1)
    if weights is None:
        module, stated = _published(name, build, network, options)
    else:
        module, stated = build(network, False, options)
        _load_weights(module, Path(weights), name)
    if preprocessing is None and isinstance(stated, str):
        raise ValueError(
            f"{name} was trained on images that are fitted to its size by {stated!r}, and not cut "
            "from the middle, which lmjax does not do; give preprocessing=, or choose other weights"
        )
    classifier = from_torch(
        module.eval(), preprocessing=preprocessing or stated, class_names=class_names
    )
    imagenet = registry.class_names("imagenet")
    if class_names is None and classifier.module.num_classes == len(imagenet):
        return dataclasses.replace(classifier, class_names=imagenet)
    return classifier


def _import(library: str) -> Any:
    try:
        return importlib.import_module(library)
    except ImportError as error:
        raise ImportError(
            f"networks of {library} need it installed: pip install torch torchvision {library}"
        ) from error
    except RuntimeError as error:
        raise ImportError(
            f"{library} cannot be imported ({one_line(error)}); torch and torchvision "
            "must be builds of the same kind, for CPU or for one version of CUDA"
        ) from error


def _published(name: str, build: Any, network: str, options: dict[str, Any]) -> Any:
    """The network with published weights."""
    if options:
        raise ValueError(
            f"num_classes is for weights in a file; the published ones of {name} have their own. "
            "Give weights= too, or leave num_classes out"
        )
    try:
        return build(network, True, options)
    except OSError as error:
        raise OSError(
            f"the published weights of {name} cannot be downloaded ({error}); download them "
            "where there is a network, and give the file: weights=FILE, in commands --weights FILE"
        ) from error


def _build_timm(name: str, pretrained: bool, options: dict[str, Any]) -> tuple[Any, Any]:
    """Makes a network; returns its preprocessing too, or the name of a crop that is not known."""
    timm = _import("timm")
    if not timm.is_model(name.split(".")[0]):
        raise ValueError(f"timm has no network {name!r}; timm.list_models() lists them")
    try:
        module = timm.create_model(name, pretrained=pretrained, **options)
    except RuntimeError as error:  # an unknown tag, or no published weights
        raise ValueError(f"timm cannot make {name!r}: {error}") from error
    stated = timm.data.resolve_model_data_config(module)
    if stated.get("crop_mode", "center") != "center":
        return module, stated["crop_mode"]
    crop = stated["input_size"][-1]
    preprocessing = Preprocessing(
        resize=math.floor(crop / stated["crop_pct"]),
        crop=crop,
        interpolation=stated["interpolation"],
        mean=stated["mean"],
        std=stated["std"],
    )
    return module, preprocessing


def _build_torchvision(name: str, pretrained: bool, options: dict[str, Any]) -> tuple[Any, Any]:
    models = _import("torchvision").models
    if name not in models.list_models(module=models):  # without detection and segmentation
        raise ValueError(
            f"torchvision has no classifier {name!r}; "
            "torchvision.models.list_models(module=torchvision.models) lists them"
        )
    published = models.get_model_weights(name).DEFAULT
    if name in ("googlenet", "inception_v3") and not pretrained:
        options = {**options, "init_weights": False}  # which takes minutes
    stated = published.transforms()
    preprocessing = Preprocessing(
        resize=stated.resize_size[0],
        crop=stated.crop_size[0],
        interpolation=stated.interpolation.value,
        mean=tuple(stated.mean),
        std=tuple(stated.std),
    )
    module = models.get_model(name, weights=published if pretrained else None, **options)
    return module, preprocessing


def _load_weights(module: Any, path: Path, name: str) -> None:
    import torch

    wanted = {key: tuple(value.shape) for key, value in module.state_dict().items()}
    state = checkpoints.read_state_dict(path)
    state = checkpoints.fitting(state, wanted, source=f"{path} for {name}")
    tensors = {key: torch.from_numpy(np.array(value)) for key, value in state.items()}
    module.load_state_dict(tensors, strict=False)  # without the counters

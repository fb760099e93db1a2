"""What the benchmarks measure with: photographs, masks, and networks with random weights."""

import math
import statistics
from pathlib import Path
from typing import Any, Literal

import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

import lmjax
from lmjax.models import Classifier, checkpoints, registry

Engine = Literal["dense", "visible", "shared", "auto"]
PHOTOGRAPHS = ("astronaut", "chelsea", "coffee", "rocket")


def photograph(size: int) -> np.ndarray:
    """Returns a photograph `[size, size, 3]` in [0, 1], which scikit-image ships."""
    from skimage.data import astronaut
    from skimage.transform import resize

    return resize(astronaut(), (size, size), anti_aliasing=True).astype(np.float32)


def write_photographs(folder: Path, count: int, *, width: int = 500, height: int = 375) -> float:
    """Writes crops of scikit-image's photographs as JPEG files, as large as ImageNet's.

    Args:
      folder: a new one, with one class in it, for `lmjax.data.from_folder`.
      count: number of crops, each at random.
      width, height: pixels of each file.

    Returns:
      The mean size of a file in bytes.
    """
    import skimage.data
    from PIL import Image

    rng = np.random.default_rng(0)
    folder = folder / "0"
    folder.mkdir(parents=True)
    for i in range(count):
        whole = Image.fromarray(getattr(skimage.data, PHOTOGRAPHS[i % len(PHOTOGRAPHS)])())
        share = rng.uniform(0.6, 1) * min(whole.width / width, whole.height / height)
        wide, high = share * width, share * height
        left, top = rng.uniform(0, (whole.width - wide, whole.height - high))
        box = (left, top, left + wide, top + high)
        crop = whole.resize((width, height), Image.Resampling.BICUBIC, box=box)
        crop.save(folder / f"{i}.jpg", quality=95)
    return statistics.mean(path.stat().st_size for path in folder.iterdir())


def patches(image: np.ndarray, count: int, share: float) -> lmjax.Coalitions:
    """Draws masks whose 16-pixel patches are visible with probability `share`."""
    return coalitions(lmjax.segments.grid(image, size=16), count, share)


def superpixels(image: np.ndarray, count: int, share: float) -> lmjax.Coalitions:
    """Draws masks whose segments, about 50 by SLIC, are visible with probability `share`."""
    return coalitions(lmjax.segments.slic(image, n_segments=50), count, share)


def coalitions(segments: np.ndarray, count: int, share: float) -> lmjax.Coalitions:
    """Draws coalitions that keep at least one segment each."""
    num_segments = int(segments.max()) + 1
    keep = np.random.default_rng(0).random((count, num_segments)) < share
    keep[np.arange(count), np.arange(count) % num_segments] = True
    return lmjax.Coalitions(segments, keep)


def random_classifier(name: str, *, seed: int = 0) -> Classifier:
    """Builds a network of the registry with random weights; one that is bundled keeps its own.

    Statistics and affine parameters are random too: with those of a fresh network, a port that
    mixes them up would still give the right logits.
    """
    network = registry.network(name)
    if network.bundled is not None:
        return lmjax.models.load(name)
    module, rng = network.build(), np.random.default_rng(seed)
    shapes = flatten_dict(checkpoints.abstract_variables(module))
    leaves = {path: _random_leaf(rng, path[-1], leaf) for path, leaf in shapes.items()}
    return Classifier(unflatten_dict(leaves), module, network.preprocessing)


def _random_leaf(rng: np.random.Generator, name: str, leaf: Any) -> jnp.ndarray:
    """Draws one array; kernels are such that every layer keeps the size of what it is given."""
    if name in ("scale", "var", "layer_scale"):
        values = rng.uniform(0.5, 1.0, leaf.shape)
    elif len(leaf.shape) == 1:
        values = 0.1 * rng.standard_normal(leaf.shape)
    else:
        std = math.sqrt(2 / math.prod(leaf.shape[:-1]))
        values = std * rng.standard_normal(leaf.shape, np.float32)
    return jnp.asarray(values, leaf.dtype)


def torch_original(name: str, classifier: Classifier):
    """Builds torchvision's or timm's network of that name with the weights of a classifier.

    Every parameter and statistic of the original is set, or torch raises an error.
    """
    import torch

    torchvision = import_torchvision()
    if hasattr(torchvision.models, name):
        options = {"init_weights": False, "aux_logits": False} if name == "googlenet" else {}
        model = getattr(torchvision.models, name)(weights=None, **options)
    else:
        import timm

        model = timm.create_model(name, pretrained=False)
    weights = checkpoints.to_state_dict(classifier.variables)
    theirs = {key: key for key in model.state_dict()}
    ours = checkpoints.rename(theirs, registry.network(name).renamed)
    state = {key: torch.tensor(weights[our]) for our, key in ours.items() if our in weights}
    model.load_state_dict(state, strict=True)
    return model.eval()


def import_torchvision():
    """Returns torchvision, imported beside a build of torch for CPUs too."""
    import torch

    try:
        import torchvision
    except RuntimeError as error:
        # PyPI's torchvision is built for CUDA. Beside a CPU build of torch its compiled operators
        # do not load, and its import fails on the first one that it looks up. Networks use none.
        if "torchvision::" not in str(error):
            raise
        for operator in ("nms", "qnms"):
            signature = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
            torch.library.define(f"torchvision::{operator}", signature)
        import torchvision
    return torchvision


def to_torch(images: np.ndarray):
    """Returns images `[N, H, W, C]` as torch takes them, `[N, C, H, W]`."""
    import torch

    return torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2)))

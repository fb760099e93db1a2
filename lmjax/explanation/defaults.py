"""What is explained, and by which network, where a call does not say."""

import os
from typing import Any

import numpy as np

from lmjax.models import Classifier, registry

DIGITS = "resnet18_digits"
PHOTOGRAPHS = "tf_efficientnet_lite0"
SCENE, PHOTOGRAPH = "scene:", "photograph:"

_SCENE, _PHOTOGRAPH = f"{SCENE}0", f"{PHOTOGRAPH}chelsea"


def has_photograph_network() -> bool:
    """Returns whether the weights of the network for photographs are installed."""
    installed = registry.network(PHOTOGRAPHS).installed
    return installed is not None and installed.path() is not None


def _is_of_digits(model: Any) -> bool:
    if model is None:
        return not has_photograph_network()
    names = registry.network(DIGITS).class_names
    return (isinstance(model, str) and model == DIGITS) or getattr(model, "class_names", 0) == names


def is_scene(image: Any) -> bool:
    """Returns whether an image is given as a digit scene."""
    return isinstance(image, str) and image.startswith(SCENE)


def choose(
    image: str | os.PathLike | np.ndarray | None, model: str | Classifier | None
) -> tuple[Any, str | Classifier]:
    """Returns what is explained, and the network.

    Photographs are explained by a network for ImageNet, digit scenes by that for digit scenes. With
    neither given it is a photograph, or a digit scene where no such network is installed.

    Args:
      image: as in `lmjax.explain`.
      model: a network's name, a classifier, or None.

    Raises:
      ValueError: a photograph, while no network for photographs is installed or given.
    """
    if image is None:
        image = _SCENE if _is_of_digits(model) else _PHOTOGRAPH
    if model is not None:
        return image, model
    if is_scene(image):
        return image, DIGITS
    if not has_photograph_network():
        installed = registry.network(PHOTOGRAPHS).installed
        assert installed is not None
        raise ValueError(
            f"no network for photographs is installed: {installed.install}; or give model, one of "
            "lmjax.models.names(), with its weights"
        )
    return image, PHOTOGRAPHS

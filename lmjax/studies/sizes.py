"""Sizes of images and of patches that the networks of a study take."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp


def as_they_are(networks: Mapping[str, Any]) -> dict[str, Any]:
    """Returns networks that see images as they are, neither resized nor cropped.

    Args:
      networks: classifiers by name.

    Raises:
      ValueError: a network or a preprocessing that is no dataclass.
    """
    found = {}
    for name, network in networks.items():
        try:
            seen = dataclasses.replace(network.preprocessing, resize=None, crop=None)
            found[name] = dataclasses.replace(network, preprocessing=seen)
        except TypeError as error:
            raise ValueError(
                f"already_sized cannot change the preprocessing of networks[{name!r}]: {error}; "
                "give the network a preprocessing that keeps the size, and leave already_sized out"
            ) from error
    return found


def shared_patch_size(networks: Mapping[str, Any]) -> int | None:
    """Returns the side of patches that segments can be made of for all networks, in pixels.

    Args:
      networks: classifiers by name.

    Returns:
      The largest `patch_size`; None where no network is a transformer.

    Raises:
      ValueError: patches of one network are not made of whole patches of another.
    """
    sizes = {name: getattr(network, "patch_size", None) for name, network in networks.items()}
    sizes = {name: size for name, size in sizes.items() if size is not None}
    largest = max(sizes.values(), default=None)
    for name, size in sizes.items():
        if largest is not None and largest % size:
            raise ValueError(
                f"snap_to_patches: network {name} has patches of {size} pixels, another network "
                f"of {largest}, which is no multiple; give them studies of their own, or turn it "
                "off (--no-snap-to-patches)"
            )
    return largest


def check_size(name: str, network: Any, shape: tuple[int, ...], image: str) -> None:
    """Raises ValueError unless a network takes images of a shape `(H, W, C)`.

    Args:
      name: of the network.
      network: classifier that keeps the size of images.
      shape: of the image.
      image: its id.
    """
    height, width = shape[:2]
    side = getattr(getattr(network, "module", None), "image_size", None)
    needed = "none of this size"
    if side is not None:
        if (height, width) == (side, side):
            return
        needed, reason = f"{side} x {side}", ""
    else:
        try:
            jax.eval_shape(network.apply, jax.ShapeDtypeStruct((1, *shape), jnp.float32))
            return
        except (TypeError, ValueError) as error:
            reason = f" ({error})"
    raise ValueError(
        f"image {image} is {height} x {width} pixels (height x width), and network {name} takes "
        f"{needed}{reason}; give images of a size that it takes, or leave already_sized "
        "(--already-sized) out, so that they are resized and cropped"
    )

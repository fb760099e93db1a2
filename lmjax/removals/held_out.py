"""The images that removals were made from, which are not to be explained or judged."""

import functools
import hashlib
from collections.abc import Iterable

import numpy as np

from lmjax.removals import registry
from lmjax.removals.samples import PHOTOGRAPHS, Origin, open_photograph, origin_of


def origin(name: str) -> Origin | None:
    """Returns what a removal was made from: the images of its file, if it says so, or photographs.

    Args:
      name: of a removal that takes a file, with or without one.
    """
    base, file = registry.check_name(name)
    if base == "samples":
        return _photographs() if file is None else origin_of(str(file))
    fitted = getattr(registry.prototype(name), "fitted", None)
    source = getattr(fitted, "source", None)
    return None if source is None else Origin(source, getattr(fitted, "hashes", ()))


def removals_by_image(names: Iterable[str]) -> dict[str, str]:
    """Returns the removal that was made from an image, by `image_hash`.

    Args:
      names: of removals.
    """
    origins = {name: origin(name) for name in names if registry.takes_file(name)}
    return {each: name for name, found in origins.items() if found for each in found.hashes}


@functools.cache
def _photographs() -> Origin:
    """Returns the photographs that "samples" takes without a file, as sources read them."""
    pictures = (np.asarray(open_photograph(name, "RGB")) for name in PHOTOGRAPHS)
    return Origin("photographs", tuple(map(image_hash, pictures)))


def image_hash(image: np.ndarray) -> str:
    """Returns a short hash of an image's pixels and shape, as its source gives it."""
    content = repr((image.shape, image.dtype.str)).encode() + image.tobytes()
    return hashlib.sha256(content).hexdigest()[:16]

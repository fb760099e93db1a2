"""The images that the files of removals were made from, which are not to be explained or judged."""

import hashlib
from collections.abc import Iterable

import numpy as np

from lmjax.removals import registry
from lmjax.removals.samples import Origin, origin_of


def origin(name: str) -> Origin | None:
    """Returns what the file of a removal was made from, if it says so."""
    base, file = registry.check_name(name)
    if base == "samples":
        return origin_of(str(file))
    fitted = getattr(registry.prototype(name), "fitted", None)
    source = getattr(fitted, "source", None)
    return None if source is None else Origin(source, getattr(fitted, "hashes", ()))


def removals_by_image(names: Iterable[str]) -> dict[str, str]:
    """Returns the removal whose file was made from an image, by `image_hash`.

    Args:
      names: of removals; those without a file have no images.
    """
    origins = {name: origin(name) for name in names if "@" in name and registry.takes_file(name)}
    return {each: name for name, found in origins.items() if found for each in found.hashes}


def image_hash(image: np.ndarray) -> str:
    """Returns a short hash of an image's pixels and shape, as its source gives it."""
    content = repr((image.shape, image.dtype.str)).encode() + image.tobytes()
    return hashlib.sha256(content).hexdigest()[:16]

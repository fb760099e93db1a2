"""Example images of a report, as networks saw them under each removal.

A run stores no images. They are read again from its source, where that is known: the manifest has
it as text, or its version tells which it is, or the caller gives it. One with another version is
not taken.
"""

import ast
import re
from typing import Any, NamedTuple

import jax
import numpy as np

from lmjax import data, removals
from lmjax._utils.identity import source_version
from lmjax._utils.pages import picture, text
from lmjax._utils.text import one_line
from lmjax.data.source import Source
from lmjax.masking.patches import whole_patches
from lmjax.masks import segments as segmenters
from lmjax.models import Preprocessing
from lmjax.removals import title as removal_title
from lmjax.removals.calibration import uncalibrated
from lmjax.removals.registry import file_sha256
from lmjax.removals.removal import declared
from lmjax.studies.about import about_of
from lmjax.studies.images import keys_of_images
from lmjax.studies.samples import Sample, read_sample
from lmjax.studies.study import Study

_COUNT = 3
_TRIED = 12
_QUALITY = 85
_GENERATED = re.compile(r"digit_scenes/(\w+)/(\d+)/1")


class Missing(Exception):
    """Why there are no examples."""


class _Seen(NamedTuple):
    """Networks that see images alike.

    Attributes:
      names: of the networks.
      preprocessing: theirs.
      patch_size: side of a transformer's patches, or None.
    """

    names: list[str]
    preprocessing: Preprocessing
    patch_size: int | None


def examples(manifest: dict[str, Any], study: Study, failed: set[int], given: Source | None) -> str:
    """Returns three images of a run under each removal of its study, in HTML.

    Args:
      manifest: of the run.
      study: its settings.
      failed: images that have no rows.
      given: the source, where the caller has one.

    Raises:
      Missing: the source is not known, cannot be read or is another by now.
    """
    source = _source(manifest, given)
    _check_files(manifest)
    samples = _samples(source, manifest["images"], failed)
    parts = []
    seen = _seen(manifest)
    for each in seen:
        rows = [_row(study, sample, each) for sample in samples]
        about = f"<h3>As {text(', '.join(each.names))} saw them</h3>" if len(seen) > 1 else ""
        heads = "".join(f'<th scope="col">{text(name)}</th>' for name in ["image", *rows[0]])
        lines = "\n".join(_line(sample, row) for sample, row in zip(samples, rows, strict=True))
        parts.append(
            f'{about}<div class="scroll"><table class="examples"><thead><tr>{heads}</tr></thead>'
            f"<tbody>{lines}</tbody></table></div>"
        )
    return f"<p>{text(_caption(study, samples))}</p>\n" + "\n".join(parts)


def _source(manifest: dict[str, Any], given: Source | None) -> Source:
    """Returns the source of a run."""
    version, found = manifest["identity"]["source"], given
    if given is None or source_version(given) != version:
        found = _known(manifest)
    if found is None:
        raise Missing(
            f"the source {version} cannot be opened by its version alone; give it to the report "
            "(--source, or source= in Python)"
        )
    if source_version(found) != version:
        raise Missing(f"the source is {source_version(found)} by now, and was {version}")
    return found


def _check_files(manifest: dict[str, Any]) -> None:
    """Raises Missing where the file of a removal is gone or has changed since the run."""
    for name, sha256 in manifest["identity"].get("files", {}).items():
        if file_sha256(name) != sha256:
            raise Missing(f"the file of the removal {name} is gone, or is another by now")


def _known(manifest: dict[str, Any]) -> Source | None:
    """Opens the source that a manifest tells of, if it does."""
    written = manifest.get("source")
    match = _GENERATED.fullmatch(manifest["identity"]["source"])
    if written is None and match:
        written = f"digit-scenes,split={match[1]},seed={match[2]}"
    if written is None:
        return None
    try:
        return data.open_source(written, length=manifest["images"])
    except (ValueError, OSError, ImportError) as error:
        raise Missing(f"the source {written} cannot be opened: {one_line(error)}") from error


def _samples(source: Source, images: int, failed: set[int]) -> list[Sample]:
    """Reads the first images that have rows."""
    found = []
    for index in [i for i in range(min(images, len(source))) if i not in failed][:_TRIED]:
        try:
            found.append(read_sample(source, index))
        except Exception as error:  # a source is the user's code, which may raise anything
            raise Missing(f"image {index} cannot be read: {one_line(error)}") from error
        if len(found) == _COUNT:
            break
    return found


def _seen(manifest: dict[str, Any]) -> list[_Seen]:
    """Returns the networks of a run by how they see images."""
    found: dict[tuple, _Seen] = {}
    for each in manifest["identity"]["networks"]:
        size = re.search(r"patch_size = (\d+)", each["architecture"])
        patch_size = int(size[1]) if size else None
        key = (each["preprocessing"], patch_size)
        if key not in found:
            found[key] = _Seen([], _preprocessing(each["preprocessing"]), patch_size)
        found[key].names.append(each["name"])
    return list(found.values())


def _preprocessing(written: str) -> Preprocessing:
    """Makes a preprocessing of its text in a manifest."""
    try:
        call: Any = ast.parse(written, mode="eval").body
        if call.func.id != Preprocessing.__name__ or call.args:
            raise ValueError("another class")
        return Preprocessing(**{each.arg: ast.literal_eval(each.value) for each in call.keywords})
    except (SyntaxError, ValueError, AttributeError, TypeError) as error:
        raise Missing(f"the preprocessing is {written}, which only its network has") from error


def _row(study: Study, sample: Sample, seen: _Seen) -> dict[str, np.ndarray]:
    """Returns the pictures of an image by what they are."""
    image = seen.preprocessing(sample.image)
    _, key = keys_of_images(jax.random.key(study.seed), [sample.index])[0]
    segments, mask = _mask(study, sample, seen, image, key)
    found = {"whole": image}
    for name in getattr(study, "removals", ()):
        found[removal_title(name)] = _shown(name, image, mask, segments, seen, key)
    return found


def _mask(
    study: Study, sample: Sample, seen: _Seen, image: np.ndarray, key: jax.Array
) -> tuple[np.ndarray, np.ndarray]:
    """Returns segments `[H, W]`, and the mask of an example, True = visible."""
    name = getattr(study, "segmenter", None) or getattr(study, "segmenters", ("grid",))[0]
    found = {"size": getattr(study, "grid_size", None)}
    found["n_segments"] = getattr(study, "n_segments", None)
    options: dict[str, Any] = {o: value for o, value in found.items() if isinstance(value, int)}
    snap = getattr(study, "snap_to_patches", True)
    patch_size = seen.patch_size if snap else None
    segments = segmenters.make(name, image, patch_size=patch_size, **options)
    if _hides_object(study, [sample]) and sample.object_mask is not None:
        return segments, ~seen.preprocessing.for_mask(sample.object_mask)
    count = int(segments.max()) + 1
    keep = (
        np.random.default_rng(np.asarray(jax.random.key_data(key))).permutation(count) >= count / 2
    )
    return segments, keep[segments]


def _hides_object(study: Study, samples: list[Sample]) -> bool:
    about = about_of(study)
    known = all(sample.object_mask is not None for sample in samples)
    return known and about is not None and about.hidden == "object"


def _shown(
    name: str,
    image: np.ndarray,
    mask: np.ndarray,
    segments: np.ndarray,
    seen: _Seen,
    key: jax.Array,
) -> np.ndarray:
    """Returns the picture that a network is given, with light checks where it is given none."""
    removal = uncalibrated(removals.make(name, key=key, segments=segments))
    if declared(removal, "where") == "input" and callable(getattr(removal, "paint", None)):
        return np.asarray(removal.paint(image, mask[None], seen.preprocessing.mean))[0]
    if declared(removal, "where") == "tokens" and seen.patch_size is not None:
        mask = np.asarray(whole_patches(mask[None], seen.patch_size))[0]
    rows, columns = np.indices(mask.shape) // max(mask.shape[0] // 28, 1)
    checks = np.where((rows + columns) % 2, 0.8, 1.0)[..., None]
    return np.where(mask[..., None], image, checks)


def _line(sample: Sample, pictures: dict[str, np.ndarray]) -> str:
    cells = "".join(
        f'<td><img alt="{text(f"image {sample.id}, {name}")}" '
        f'src="{picture(each, quality=_QUALITY)}"></td>'
        for name, each in pictures.items()
    )
    return f'<tr><th scope="row">{text(sample.id)}</th>{cells}</tr>'


def _caption(study: Study, samples: list[Sample]) -> str:
    if not getattr(study, "removals", ()):
        return "The first images of the run, as the networks saw them."
    what = "the object hidden"
    if not _hides_object(study, samples):
        what = "half of the segments hidden, which are drawn for this page"
    return (
        f"The first images of the run, with {what}. Checks stand where nothing is put in the place "
        "of hidden parts, which the network leaves out."
    )

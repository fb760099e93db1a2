"""Files for removals, made from held-out images: calibrations, and images to sample from."""

import dataclasses
import os
from collections.abc import Iterable
from typing import Any

import numpy as np

from lmjax._utils import array_file
from lmjax._utils.checks import check_whole
from lmjax._utils.identity import has_version, source_version
from lmjax.data import Source, SourceSpec
from lmjax.evaluation import Evaluator, Predictor, calibrate
from lmjax.evaluation.evaluator import Engine
from lmjax.masks.segments import cells
from lmjax.models.identity import weights_of
from lmjax.models.loading import load_spec
from lmjax.removals import Calibrated, Samples, calibration, registry
from lmjax.removals.calibration import Fitted, check_inner, make_seeded
from lmjax.removals.held_out import image_hash, origin, removals_by_image
from lmjax.removals.samples import KIND, Origin, write_images
from lmjax.studies.samples import Sample, read_sample

# Cells along each side, so that masks have about 25, 100, 500 and 5000 segments, as the contest.
_CELLS = (5, 10, 22, 71)


def fit_calibration(
    removal: str,
    source: Source | str,
    *,
    model: Any = "resnet18_digits",
    images: int = 200,
    variants: int = 10,
    ridge: float = 1e-3,
    seed: int = 0,
    output: str | os.PathLike | None = None,
    engine: Engine = "auto",
    batch_size: int | None = None,
) -> Calibrated:
    """Calibrates a removal on held-out images, for the removal `"calibrated@FILE"`.

    Each image has variants with rectangles of one of four sizes removed at random, a random share
    of them. `lmjax.removals.calibrated` says what is fitted.

    Example:
      >>> fitted = lmjax.studies.fit_calibration(
      ...     "grey", "digit-scenes,split=train", images=8, variants=2
      ... )
      >>> fitted.fitted.removal
      'grey'

    Args:
      removal: name of a removal that needs neither segments nor a file. One that draws does so from
        `seed`, alike for all images, then and later.
      source: of images that are not those to be judged; as in `lmjax.studies.run`. As text, of one
        with splits it is the training split, unless it says another.
      model: `NAME` or `NAME=WEIGHTS`, as in commands, or a classifier.
      images: how many, from the first.
      variants: of each image.
      ridge: as in `lmjax.removals.calibrated`.
      seed: of the masks and of the removal.
      output: the file to write, ends in `.npz`; a file of a calibration is replaced, and no other.
        None writes none.
      engine, batch_size: as in `lmjax.Evaluator`.

    Raises:
      ValueError: arguments out of range, fewer images than are asked for, images that cannot be
        read, or a fit that does not converge.
      OSError: the file cannot be written.
    """
    removal = check_inner(removal)
    if output is not None:
        array_file.check_path(output, calibration.KIND)
    variants = check_whole("variants", variants, least=1)
    seed = check_whole("seed", seed, least=0)
    classifier = load_spec(model) if isinstance(model, str) else model
    made_from, shown = _read(source, classifier, images)
    masks = np.concatenate(
        [_masks(shown.shape[1:3], variants, (seed, image)) for image in range(len(shown))]
    )
    predictor = Predictor(classifier, make_seeded(removal, seed))
    found = calibrate(
        Evaluator(predictor, engine=engine, batch_size=batch_size),
        shown,
        masks,
        image_of=np.repeat(np.arange(len(shown)), variants),
        ridge=ridge,
    ).removal
    fitted = Fitted(
        removal=removal,
        seed=seed,
        weights_sha256=weights_of(classifier),
        source=made_from.source,
        images=len(shown),
        variants=variants,
        hashes=made_from.hashes,
    )
    assert isinstance(found, Calibrated)
    found = dataclasses.replace(found, fitted=fitted)
    if output is not None:
        found.save(output)
    return found


def write_samples(
    path: str | os.PathLike,
    source: Source | str,
    *,
    model: Any = "resnet18_digits",
    images: int = 64,
) -> None:
    """Writes images of a source as a network sees them, for the removal `"samples@PATH"`.

    Args:
      path: ends in `.npz`; a file of such images is replaced, and no other.
      source: as in `fit_calibration`; none of its images is one to be explained or judged.
      model: as in `fit_calibration`; its preprocessing resizes and crops.
      images: how many, from the first; 8 or more, as many as the removal draws.

    Raises:
      ValueError: as `fit_calibration`.
      OSError: the file cannot be written.
    """
    images = check_whole("images", images, least=Samples.draws)
    array_file.check_path(path, KIND)
    classifier = load_spec(model) if isinstance(model, str) else model
    made_from, shown = _read(source, classifier, images)
    write_images(path, shown, origin=made_from)


class HeldOutError(ValueError):
    """Raised for an image that a removal was made from.

    Attributes:
      id: of the image.
    """

    def __init__(self, message: str, id: str):
        super().__init__(message)
        self.id = id


def is_held_out(error: dict[str, Any]) -> bool:
    """Returns whether an error in a run's record is of an image that a removal was made from."""
    return error["error"].startswith(f"{HeldOutError.__name__}: ")


class HeldOut:
    """The images that removals were made from, which are not to be judged.

    Args:
      names: of removals; other texts are passed over.
      source: of the images to be judged.

    Raises:
      ValueError: a file that was made from this source.
    """

    def __init__(self, names: Iterable[str], source: Any):
        names = tuple(name for name in names if registry.takes_file(name))
        # Of a source without a version only the images are compared.
        for name in names if has_version(source) else ():
            found = origin(name)
            if found is not None and found.source == source_version(source):
                raise ValueError(
                    f"the file of removal {name} was made from this source; judge it on other "
                    "images, or make another with `lmjax data`"
                )
        self._names = removals_by_image(names)

    def check(self, sample: Sample) -> None:
        """Raises HeldOutError for an image that a removal was made from, by way of any source."""
        if self._names and (name := self._names.get(image_hash(sample.image))):
            raise HeldOutError(f"removal {name} was made from this image", sample.id)


def _read(source: Source | str, classifier: Any, images: int) -> tuple[Origin, np.ndarray]:
    """Returns the first images of a source as a network sees them, and where they come from."""
    images = check_whole("images", images, least=1)
    if isinstance(source, str):
        source = SourceSpec.parse(source).for_training().open(length=images)
    if len(source) < images:
        raise ValueError(f"images must be at most {len(source)}, those of the source; got {images}")
    hashes, shown = [], []
    for index in range(images):
        image = read_sample(source, index).image
        hashes.append(image_hash(image))
        shown.append(classifier.preprocessing(image))
    return Origin(source_version(source), tuple(hashes)), np.stack(shown)


def _masks(shape: tuple[int, ...], variants: int, seed: tuple[int, ...]) -> np.ndarray:
    """Draws masks `[V, H, W]`, True where visible."""
    rng = np.random.default_rng(seed)
    masks = []
    for most in rng.choice(_CELLS, variants):
        segments = cells((shape[0], shape[1]), int(most))
        kept = rng.permutation(segments.max() + 1) < rng.uniform() * (segments.max() + 1)
        masks.append(kept[segments])
    return np.stack(masks)

"""Calibration of a predictor, so that masked images keep the class of whole ones."""

import dataclasses

import numpy as np

from lmjax.evaluation.evaluator import Evaluator, as_evaluator
from lmjax.evaluation.outputs import predicted_classes
from lmjax.evaluation.predictor import Predictor
from lmjax.removals.calibration import calibrated


def calibrate(
    predictor: Predictor | Evaluator, images, masks, *, image_of, ridge: float = 1e-3
) -> Predictor:
    """Returns a predictor whose removal is calibrated on images; see `lmjax.removals.calibrated`.

    Give images that are not among those to be judged: masked variants of an image must not be on
    both sides.

    Args:
      predictor: a classifier and a removal, or an evaluator of one.
      images: `[M, H, W, C]` in [0, 1], for the fit alone.
      masks: `[N, H, W]`, 1 = visible, of the sizes that the predictor is to be used with.
      image_of: `[N]` ints from 0 to M - 1, the image of each mask.
      ridge: as in `lmjax.removals.calibrated`.

    Raises:
      ValueError: another predictor, or what the evaluation or the fit refuses.
    """
    evaluator = as_evaluator(predictor)
    if not isinstance(evaluator.predictor, Predictor):
        raise ValueError(
            f"predictor must be an lmjax.Predictor, got {type(evaluator.predictor).__name__}"
        )
    images = np.asarray(images)
    logits = evaluator.images(images, masks, image_of=image_of)
    everything = np.ones(images.shape[:3], bool)
    whole = evaluator.images(images, everything, image_of=np.arange(len(images)))
    classes = predicted_classes(whole)[np.asarray(image_of)]
    removal = calibrated(evaluator.predictor.removal, logits, classes, ridge=ridge)
    return dataclasses.replace(evaluator.predictor, removal=removal)

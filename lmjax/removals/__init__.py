"""Removals: how hidden features are withheld from a network."""

from lmjax.removals.average import ReplaceAverage, StandardErrors
from lmjax.removals.calibration import Calibrated, calibrated
from lmjax.removals.fill import Fill
from lmjax.removals.masking import LayerMasking, PartialConvolution, TokenDropping
from lmjax.removals.registry import (
    OWN,
    canonical,
    check_fits,
    check_name,
    description,
    make,
    names,
    needs_key,
    needs_segments,
    paints,
    register,
    soft_masks,
    title,
)
from lmjax.removals.removal import Painting, Removal
from lmjax.removals.replace import Replace
from lmjax.removals.samples import Samples

__all__ = [
    "OWN",
    "Calibrated",
    "Fill",
    "LayerMasking",
    "Painting",
    "PartialConvolution",
    "Removal",
    "Replace",
    "ReplaceAverage",
    "Samples",
    "StandardErrors",
    "TokenDropping",
    "calibrated",
    "canonical",
    "check_fits",
    "check_name",
    "description",
    "make",
    "names",
    "needs_key",
    "needs_segments",
    "paints",
    "register",
    "soft_masks",
    "title",
]

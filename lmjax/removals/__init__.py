"""Removals: how hidden features are withheld from a network."""

from lmjax.removals.average import ReplaceAverage
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

__all__ = [
    "OWN",
    "Fill",
    "LayerMasking",
    "Painting",
    "PartialConvolution",
    "Removal",
    "Replace",
    "ReplaceAverage",
    "TokenDropping",
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

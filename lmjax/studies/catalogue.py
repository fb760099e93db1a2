"""The studies there are, by name."""

from lmjax.studies.consistency import Consistency
from lmjax.studies.lime_quality import LimeQuality
from lmjax.studies.removal import SegmentRemoval
from lmjax.studies.shape import MaskShape
from lmjax.studies.study import Study

STUDIES: dict[str, type[Study]] = {
    study.name: study for study in (SegmentRemoval, MaskShape, LimeQuality, Consistency)
}

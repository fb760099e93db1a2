"""The studies there are, by name."""

from lmjax.studies.baselines import BaselineDependence
from lmjax.studies.concordance import Concordance
from lmjax.studies.consistency import Consistency
from lmjax.studies.lime_quality import LimeQuality
from lmjax.studies.linearity import FeatureLinearity
from lmjax.studies.removal import SegmentRemoval
from lmjax.studies.shape import MaskShape
from lmjax.studies.study import Study

STUDIES: dict[str, type[Study]] = {
    study.name: study
    for study in (
        SegmentRemoval,
        MaskShape,
        LimeQuality,
        Consistency,
        BaselineDependence,
        FeatureLinearity,
        Concordance,
    )
}

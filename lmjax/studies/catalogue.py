"""The studies there are, by name."""

from lmjax.studies.experiments.baselines import BaselineDependence
from lmjax.studies.experiments.concordance import Concordance
from lmjax.studies.experiments.consistency import Consistency
from lmjax.studies.experiments.lime_quality import LimeQuality
from lmjax.studies.experiments.linearity import FeatureLinearity
from lmjax.studies.experiments.removal import SegmentRemoval
from lmjax.studies.experiments.shape import MaskShape
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

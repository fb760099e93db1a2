"""Studies: experiments over many images, resumable, with tables and figures."""

from typing import TYPE_CHECKING

from lmjax._utils.lazy import attach

if TYPE_CHECKING:
    from lmjax.studies import measurements as measurements
    from lmjax.studies import statistics as statistics
    from lmjax.studies.about import About as About
    from lmjax.studies.experiments.baselines import BaselineDependence as BaselineDependence
    from lmjax.studies.experiments.concordance import Concordance as Concordance
    from lmjax.studies.experiments.consistency import Consistency as Consistency
    from lmjax.studies.experiments.contest import RemovalContest as RemovalContest
    from lmjax.studies.experiments.in_domain import InDomainJudges as InDomainJudges
    from lmjax.studies.experiments.lime_quality import LimeQuality as LimeQuality
    from lmjax.studies.experiments.linearity import FeatureLinearity as FeatureLinearity
    from lmjax.studies.experiments.removal import SegmentRemoval as SegmentRemoval
    from lmjax.studies.experiments.shape import MaskShape as MaskShape
    from lmjax.studies.held_out import fit_calibration as fit_calibration
    from lmjax.studies.held_out import write_samples as write_samples
    from lmjax.studies.images import ImageBatch as ImageBatch
    from lmjax.studies.registry import get as get
    from lmjax.studies.registry import names as names
    from lmjax.studies.registry import register as register
    from lmjax.studies.reporting import report as report
    from lmjax.studies.reporting import write as write
    from lmjax.studies.reporting import write_seeds as write_seeds
    from lmjax.studies.runner import Cost as Cost
    from lmjax.studies.runner import errors as errors
    from lmjax.studies.runner import estimate as estimate
    from lmjax.studies.runner import run as run
    from lmjax.studies.study import Study as Study

__getattr__, __dir__, __all__ = attach(
    __name__,
    {
        "About": "lmjax.studies.about",
        "BaselineDependence": "lmjax.studies.experiments.baselines",
        "Concordance": "lmjax.studies.experiments.concordance",
        "Consistency": "lmjax.studies.experiments.consistency",
        "Cost": "lmjax.studies.runner",
        "FeatureLinearity": "lmjax.studies.experiments.linearity",
        "ImageBatch": "lmjax.studies.images",
        "InDomainJudges": "lmjax.studies.experiments.in_domain",
        "LimeQuality": "lmjax.studies.experiments.lime_quality",
        "MaskShape": "lmjax.studies.experiments.shape",
        "RemovalContest": "lmjax.studies.experiments.contest",
        "SegmentRemoval": "lmjax.studies.experiments.removal",
        "Study": "lmjax.studies.study",
        "errors": "lmjax.studies.runner",
        "estimate": "lmjax.studies.runner",
        "fit_calibration": "lmjax.studies.held_out",
        "get": "lmjax.studies.registry",
        "measurements": "lmjax.studies.measurements",
        "names": "lmjax.studies.registry",
        "register": "lmjax.studies.registry",
        "report": "lmjax.studies.reporting",
        "run": "lmjax.studies.runner",
        "statistics": "lmjax.studies.statistics",
        "write": "lmjax.studies.reporting",
        "write_samples": "lmjax.studies.held_out",
        "write_seeds": "lmjax.studies.reporting",
    },
    replaced={
        "summaries": "lmjax.studies.statistics",
        "block": "lmjax.studies.ImageBatch, which a study's rows() is given",
        "catalogue": "lmjax.studies.names(), get(name) and register(study)",
    },
)

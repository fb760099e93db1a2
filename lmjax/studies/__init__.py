"""Studies: experiments over many images, resumable, with tables and figures."""

from lmjax._utils.lazy import attach

__getattr__, __dir__, __all__ = attach(
    __name__,
    {
        "BaselineDependence": "lmjax.studies.experiments.baselines",
        "Concordance": "lmjax.studies.experiments.concordance",
        "Consistency": "lmjax.studies.experiments.consistency",
        "Cost": "lmjax.studies.runner",
        "FeatureLinearity": "lmjax.studies.experiments.linearity",
        "LimeQuality": "lmjax.studies.experiments.lime_quality",
        "MaskShape": "lmjax.studies.experiments.shape",
        "SegmentRemoval": "lmjax.studies.experiments.removal",
        "Study": "lmjax.studies.study",
        "errors": "lmjax.studies.runner",
        "summaries": "lmjax.studies.statistics",
        "report": "lmjax.studies.report",
        "write": "lmjax.studies.report",
        "write_seeds": "lmjax.studies.report",
        "estimate": "lmjax.studies.runner",
        "run": "lmjax.studies.runner",
    },
)

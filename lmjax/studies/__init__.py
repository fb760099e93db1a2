"""Studies: experiments over many images, resumable, with tables and figures."""

from lmjax.lazy import attach

__getattr__, __dir__, __all__ = attach(
    __name__,
    {
        "BaselineDependence": "lmjax.studies.baselines",
        "Concordance": "lmjax.studies.concordance",
        "Consistency": "lmjax.studies.consistency",
        "Cost": "lmjax.studies.running",
        "FeatureLinearity": "lmjax.studies.linearity",
        "LimeQuality": "lmjax.studies.lime_quality",
        "MaskShape": "lmjax.studies.shape",
        "SegmentRemoval": "lmjax.studies.removal",
        "Study": "lmjax.studies.study",
        "errors": "lmjax.studies.running",
        "summaries": "lmjax.studies.summaries",
        "report": "lmjax.studies.reporting",
        "write": "lmjax.studies.reporting",
        "write_seeds": "lmjax.studies.reporting",
        "estimate": "lmjax.studies.running",
        "run": "lmjax.studies.running",
    },
)

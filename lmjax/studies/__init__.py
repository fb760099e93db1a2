"""Studies: experiments over many images, resumable, with tables and figures."""

from lmjax.lazy import attach

__getattr__, __dir__, __all__ = attach(
    __name__,
    {
        "Cost": "lmjax.studies.running",
        "MaskShape": "lmjax.studies.shape",
        "SegmentRemoval": "lmjax.studies.removal",
        "Study": "lmjax.studies.study",
        "errors": "lmjax.studies.running",
        "summaries": "lmjax.studies.summaries",
        "report": "lmjax.studies.reporting",
        "write": "lmjax.studies.reporting",
        "estimate": "lmjax.studies.running",
        "run": "lmjax.studies.running",
    },
)

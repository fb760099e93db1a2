"""Networks: their registry, their weights, and classifiers made of both."""

from lmjax._utils.lazy import attach

__getattr__, __dir__, __all__ = attach(
    __name__,
    {
        "Classifier": "lmjax.models.classifier",
        "Preprocessing": "lmjax.models.preprocessing",
        "WeightSource": "lmjax.models.registry",
        "convert": "lmjax.models.loading",
        "load": "lmjax.models.loading",
        "names": "lmjax.models.registry",
        "tags": "lmjax.models.registry",
    },
)

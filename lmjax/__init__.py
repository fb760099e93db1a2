"""lmjax: layer masking for convolutional networks in JAX, and the perturbation studies around it.

Ask a network what it sees when part of the image is missing:

    import lmjax

    classifier = lmjax.models.load("resnet18_digits")
    predictor = lmjax.Predictor(classifier, lmjax.LayerMasking())
    logits = lmjax.evaluate(predictor, image, masks)

Importing lmjax imports nothing heavy: each name below is loaded when it is first used.
"""

import importlib

__version__ = "0.1.0"

_MODULES = {
    "attribution": "lmjax.attribution",
    "data": "lmjax.data",
    "masking": "lmjax.masking",
    "metrics": "lmjax.metrics",
    "models": "lmjax.models",
    "perturbation": "lmjax.perturbation",
    "plots": "lmjax.plots",
    "segments": "lmjax.perturbation.segments",
    "training": "lmjax.training",
}
_NAMES = {
    "Coalitions": "lmjax.perturbation",
    "LayerMasking": "lmjax.masking",
    "Masked": "lmjax.masking",
    "PartialConvolution": "lmjax.masking",
    "Predictor": "lmjax.perturbation",
    "Replace": "lmjax.masking",
    "evaluate": "lmjax.perturbation",
}

__all__ = [*sorted(_MODULES), *sorted(_NAMES), "__version__"]


def __getattr__(name: str):
    if name in _MODULES:
        return importlib.import_module(_MODULES[name])
    if name in _NAMES:
        return getattr(importlib.import_module(_NAMES[name]), name)
    raise AttributeError(f"module 'lmjax' has no attribute {name!r}")


def __dir__():
    return sorted(__all__)

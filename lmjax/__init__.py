"""lmjax: layer masking for convolutional networks in JAX, and the perturbation studies around it.

Ask a network what it sees when part of the image is missing:

    import lmjax

    classifier = lmjax.models.load("resnet18_digits")
    predictor = lmjax.Predictor(classifier, lmjax.LayerMasking())
    logits = lmjax.evaluate(predictor, image, masks)

Importing lmjax imports nothing heavy: each name below is loaded when it is first used.
"""

from lmjax.lazy import attach

__version__ = "0.1.0"

__getattr__, __dir__, __all__ = attach(
    __name__,
    {
        "attribution": "lmjax.attribution",
        "data": "lmjax.data",
        "masking": "lmjax.masking",
        "metrics": "lmjax.metrics",
        "models": "lmjax.models",
        "perturbation": "lmjax.perturbation",
        "plots": "lmjax.plots",
        "segments": "lmjax.perturbation.segments",
        "studies": "lmjax.studies",
        "training": "lmjax.training",
        "Coalitions": "lmjax.perturbation",
        "LayerMasking": "lmjax.masking",
        "Masked": "lmjax.masking",
        "PartialConvolution": "lmjax.masking",
        "Predictor": "lmjax.perturbation",
        "Replace": "lmjax.masking",
        "ReplaceAverage": "lmjax.masking",
        "TokenDropping": "lmjax.masking",
        "evaluate": "lmjax.perturbation",
    },
)

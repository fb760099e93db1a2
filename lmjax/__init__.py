"""lmjax: layer masking for convolutional networks in JAX, and the perturbation studies around it.

Ask a network what it sees when part of the image is missing:

    import lmjax

    classifier = lmjax.models.load("resnet18_digits")
    predictor = lmjax.Predictor(classifier, lmjax.LayerMasking())
    logits = lmjax.evaluate(predictor, image, masks)

Importing lmjax imports nothing heavy: each name below is loaded when it is first used.
"""

from typing import TYPE_CHECKING

from lmjax._utils.lazy import attach

if TYPE_CHECKING:
    from lmjax import (
        attribution as attribution,
    )
    from lmjax import (
        data as data,
    )
    from lmjax import (
        evaluation as evaluation,
    )
    from lmjax import (
        explanation as explanation,
    )
    from lmjax import (
        masking as masking,
    )
    from lmjax import (
        masks as masks,
    )
    from lmjax import (
        metrics as metrics,
    )
    from lmjax import (
        models as models,
    )
    from lmjax import (
        plots as plots,
    )
    from lmjax import (
        removals as removals,
    )
    from lmjax import (
        studies as studies,
    )
    from lmjax import (
        training as training,
    )
    from lmjax.evaluation import Evaluator as Evaluator
    from lmjax.evaluation import Predictor as Predictor
    from lmjax.evaluation import evaluate as evaluate
    from lmjax.evaluation import objectives as objectives
    from lmjax.explanation import explain as explain
    from lmjax.masking import Masked as Masked
    from lmjax.masking import layer_mask as layer_mask
    from lmjax.masks import Coalitions as Coalitions
    from lmjax.masks import segments as segments
    from lmjax.models import black_box as black_box
    from lmjax.removals import (
        Fill as Fill,
    )
    from lmjax.removals import (
        LayerMasking as LayerMasking,
    )
    from lmjax.removals import (
        PartialConvolution as PartialConvolution,
    )
    from lmjax.removals import (
        Removal as Removal,
    )
    from lmjax.removals import (
        Replace as Replace,
    )
    from lmjax.removals import (
        ReplaceAverage as ReplaceAverage,
    )
    from lmjax.removals import (
        Samples as Samples,
    )
    from lmjax.removals import (
        TokenDropping as TokenDropping,
    )

__version__ = "0.3.0.dev0"

__getattr__, __dir__, __all__ = attach(
    __name__,
    {
        "attribution": "lmjax.attribution",
        "data": "lmjax.data",
        "evaluation": "lmjax.evaluation",
        "explanation": "lmjax.explanation",
        "masking": "lmjax.masking",
        "masks": "lmjax.masks",
        "metrics": "lmjax.metrics",
        "models": "lmjax.models",
        "objectives": "lmjax.evaluation.objectives",
        "plots": "lmjax.plots",
        "removals": "lmjax.removals",
        "segments": "lmjax.masks.segments",
        "studies": "lmjax.studies",
        "training": "lmjax.training",
        "Coalitions": "lmjax.masks",
        "Evaluator": "lmjax.evaluation",
        "Fill": "lmjax.removals",
        "LayerMasking": "lmjax.removals",
        "Masked": "lmjax.masking",
        "PartialConvolution": "lmjax.removals",
        "Predictor": "lmjax.evaluation",
        "Removal": "lmjax.removals",
        "Replace": "lmjax.removals",
        "ReplaceAverage": "lmjax.removals",
        "Samples": "lmjax.removals",
        "TokenDropping": "lmjax.removals",
        "black_box": "lmjax.models",
        "evaluate": "lmjax.evaluation",
        "explain": "lmjax.explanation",
        "layer_mask": "lmjax.masking",
    },
    replaced={
        "perturbation": "lmjax.masks and lmjax.evaluation, between which its names are divided",
        "methods": "lmjax.attribution.methods",
        "devices": "jax.sharding.Mesh, which lmjax.Evaluator(mesh=...) takes",
    },
)

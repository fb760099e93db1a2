"""Networks: their registry, their weights, and classifiers made of both."""

from typing import TYPE_CHECKING

from lmjax._utils.lazy import attach

if TYPE_CHECKING:
    from lmjax.models import layers as layers
    from lmjax.models import pytorch as pytorch
    from lmjax.models.blackbox import BlackBox as BlackBox
    from lmjax.models.blackbox import black_box as black_box
    from lmjax.models.classifier import Classifier as Classifier
    from lmjax.models.external import from_torch as from_torch
    from lmjax.models.functional import from_function as from_function
    from lmjax.models.loading import convert as convert
    from lmjax.models.loading import load as load
    from lmjax.models.preprocessing import Preprocessing as Preprocessing
    from lmjax.models.recognition import Fit as Fit
    from lmjax.models.recognition import recognise as recognise
    from lmjax.models.registry import NetworkInfo as NetworkInfo
    from lmjax.models.registry import WeightSource as WeightSource
    from lmjax.models.registry import description as description
    from lmjax.models.registry import find_source as find_source
    from lmjax.models.registry import names as names
    from lmjax.models.registry import register as register
    from lmjax.models.registry import tags as tags

__getattr__, __dir__, __all__ = attach(
    __name__,
    {
        "layers": "lmjax.models.layers",
        "BlackBox": "lmjax.models.blackbox",
        "Classifier": "lmjax.models.classifier",
        "Fit": "lmjax.models.recognition",
        "NetworkInfo": "lmjax.models.registry",
        "Preprocessing": "lmjax.models.preprocessing",
        "WeightSource": "lmjax.models.registry",
        "black_box": "lmjax.models.blackbox",
        "convert": "lmjax.models.loading",
        "description": "lmjax.models.registry",
        "find_source": "lmjax.models.registry",
        "from_function": "lmjax.models.functional",
        "from_torch": "lmjax.models.external",
        "load": "lmjax.models.loading",
        "names": "lmjax.models.registry",
        "pytorch": "lmjax.models.pytorch",
        "recognise": "lmjax.models.recognition",
        "register": "lmjax.models.registry",
        "tags": "lmjax.models.registry",
    },
)

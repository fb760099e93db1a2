"""Layer masking of any network of torchvision or timm, module by module: the oracle of whole ones.

torch.fx gives the network's graph as it is defined there; every node follows the plain rules of
`tests.support.layer_masking_reference`. So nothing of a network's definition here is used, nor any
shortcut. One image at a time, float64. A module or function without a rule is a KeyError.
"""

from typing import NamedTuple

import numpy as np
import torch
from torch import nn

from tests.support import layer_masking_reference as reference
from tests.support.torch_reference import timm, torchvision

LayerNorm2d = torchvision.models.convnext.LayerNorm2d
UNCHANGED = (
    nn.Dropout,
    nn.Identity,
    torchvision.ops.StochasticDepth,
    torchvision.ops.Permute,  # of ConvNeXt: channels last and back; here they always are
)


class Value(NamedTuple):
    """Activations `[H, W, C]` and their mask `[H, W]`."""

    x: np.ndarray
    mask: np.ndarray


class OverZeros(NamedTuple):
    """A value with `width` rows and columns of zeros around it."""

    value: Value
    width: int


class Tracer(torch.fx.Tracer):
    def is_leaf_module(self, module, name):
        known = type(module) in MODULES or not list(module.children())
        return known or super().is_leaf_module(module, name)


def logits(model: nn.Module, image: np.ndarray, mask: np.ndarray, *, fill="neighbor") -> np.ndarray:
    """Logits `[K]` of a normalised image `[H, W, C]` under a mask `[H, W]`."""
    values = {}
    for node in Tracer().trace(model).nodes:
        arguments = torch.fx.node.map_arg(node.args, values.__getitem__)
        if node.op == "placeholder":
            values[node] = on(mask, image.astype(np.float64))
        elif node.op == "get_attr":
            values[node] = array(model.get_parameter(node.target))
        elif node.op == "call_module":
            module = model.get_submodule(node.target)
            fills = {"fill": fill} if type(module) in CONVOLUTIONS else {}
            values[node] = MODULES[type(module)](module, *arguments, **fills)
        elif node.op == "output":
            return arguments[0]
        else:
            name = node.target if node.op == "call_method" else node.target.__name__
            values[node] = FUNCTIONS[name](*arguments)
    raise ValueError("no output")


def array(tensor: torch.Tensor) -> np.ndarray:
    return tensor.detach().numpy().astype(np.float64)


def on(mask, x) -> Value:
    return Value(np.where(mask[..., None], x, 0), mask)


def pointwise(function, inputs):
    """On the positions of a `Value`, or on features `[D]`."""
    if isinstance(inputs, Value):
        return on(inputs.mask, function(inputs.x))
    return function(inputs)


def by_torch(function):
    return lambda x: function(torch.from_numpy(x.copy())).numpy()


def conv(module, inputs, *, fill):
    bias = None if module.bias is None else array(module.bias)
    options = {key: getattr(module, key)[0] for key in ("stride", "padding", "dilation")}
    options["groups"] = module.groups
    return Value(*reference.conv(*inputs, array(module.weight), bias, fill=fill, **options))


def same_conv(module, inputs, *, fill):
    """With TensorFlow's padding: where it is odd, one more behind."""
    options = {key: getattr(module, key)[0] for key in ("stride", "dilation", "kernel_size")}
    size, stride = options.pop("kernel_size"), options["stride"]
    totals = (max((-(-n // stride) - 1) * stride + size - n, 0) for n in inputs.mask.shape)
    options["padding"] = tuple((total // 2, total - total // 2) for total in totals)
    options["groups"] = module.groups
    assert module.bias is None
    return Value(*reference.conv(*inputs, array(module.weight), None, fill=fill, **options))


def batch_norm(module, inputs):
    mean, var = array(module.running_mean), array(module.running_var)
    scale = array(module.weight) / np.sqrt(var + module.eps)
    return pointwise(lambda x: (x - mean) * scale + array(module.bias), inputs)


def layer_norm(module, inputs):
    def normalise(x):
        x = x - x.mean(axis=-1, keepdims=True)
        x = x / np.sqrt((x**2).mean(axis=-1, keepdims=True) + module.eps)
        return x * array(module.weight) + array(module.bias)

    return pointwise(normalise, inputs)


def standardised_conv(module, inputs, *, fill):
    """With the kernel of each output less its mean, over its deviation."""
    weight = array(module.weight)
    weight = weight - weight.mean(axis=(1, 2, 3), keepdims=True)
    weight = weight / np.sqrt((weight**2).mean(axis=(1, 2, 3), keepdims=True) + module.eps)
    plain = nn.Conv2d(
        module.in_channels, module.out_channels, module.kernel_size, module.stride, module.padding
    ).double()
    plain.weight.data, plain.bias = torch.from_numpy(weight), None
    return conv(plain, inputs, fill=fill)


def group_norm(module, inputs):
    """Statistics over the visible positions."""
    x, mask = inputs
    groups = np.split(x, module.num_groups, axis=-1)
    if mask.any():
        groups = [(g - g[mask].mean()) / np.sqrt(g[mask].var() + module.eps) for g in groups]
    return on(mask, np.concatenate(groups, axis=-1) * array(module.weight) + array(module.bias))


def then_activation(norm):
    return lambda module, inputs: pointwise(by_torch(module.act), norm(module, inputs))


def max_pool(module, inputs):
    """Zeros around the image count, but nothing is visible for them alone."""
    if not isinstance(inputs, OverZeros):
        return pool(reference.max_pool)(module, inputs)
    (x, mask), width = inputs
    options = {"window": module.kernel_size, "stride": module.stride}
    around = ((width, width), (width, width))
    known = np.pad(mask, around, constant_values=True)
    y, _ = reference.max_pool(np.pad(x, (*around, (0, 0))), known, **options)
    _, seen = reference.max_pool(x, mask, padding=width, **options)
    return on(seen, y)


def select_adaptive_pool(module, inputs):
    means = adaptive_average_pool(inputs, 1)
    return means if isinstance(module.flatten, nn.Identity) else flatten(means)


def linear(module, inputs):
    """Some outputs at a time: the weights of all would be a gigabyte in float64."""

    def multiply(x):
        parts = [x @ array(weight).T for weight in module.weight.split(64)]
        return np.concatenate(parts, axis=-1) + array(module.bias)

    return pointwise(multiply, inputs)


def pool(function):
    def run(module, inputs):
        return Value(
            *function(
                *inputs,
                window=module.kernel_size,
                stride=module.stride,
                padding=module.padding,
                ceil_mode=module.ceil_mode,
            )
        )

    return run


def adaptive_average_pool(inputs, size):
    """Means are plain features: nothing of them is hidden."""
    size = size if isinstance(size, int) else size[0]
    cells = reference.adaptive_average_pool(*inputs, size)
    return Value(cells, np.ones((size, size), bool))


def add(a, b):
    return on(a.mask & b.mask, a.x + b.x)


def multiply(a, b):
    """By the factors of squeeze-and-excitation `[1, 1, C]`, or by a layer's scale `[C, 1, 1]`."""
    if isinstance(a, Value):
        return Value(a.x * b.x, a.mask & b.mask)
    return Value(a.ravel() * b.x, b.mask)


def concatenate(values, axis):
    assert axis == 1  # channels
    mask = np.logical_and.reduce([value.mask for value in values])
    return on(mask, np.concatenate([value.x for value in values], axis=-1))


def flatten(inputs, *axes):
    """Channels first, as torch has them."""
    return inputs.x.transpose(2, 0, 1).ravel()


ACTIVATIONS = (nn.ReLU, nn.ReLU6, nn.SiLU, nn.GELU, nn.Sigmoid, nn.Hardswish, nn.Hardsigmoid)
CONVOLUTIONS = {
    nn.Conv2d: conv,
    timm.layers.StdConv2d: standardised_conv,
    timm.layers.Conv2dSame: same_conv,
}
MODULES = {
    **CONVOLUTIONS,
    nn.BatchNorm2d: batch_norm,
    nn.LayerNorm: layer_norm,
    LayerNorm2d: layer_norm,
    nn.Linear: linear,
    nn.MaxPool2d: max_pool,
    nn.ConstantPad2d: lambda module, inputs: OverZeros(inputs, module.padding[0]),
    nn.AvgPool2d: pool(reference.average_pool),
    nn.AdaptiveAvgPool2d: lambda m, inputs: adaptive_average_pool(inputs, m.output_size),
    nn.Flatten: lambda module, inputs: flatten(inputs),
    timm.layers.BatchNormAct2d: then_activation(batch_norm),
    timm.layers.GroupNormAct: then_activation(group_norm),
    timm.layers.SelectAdaptivePool2d: select_adaptive_pool,
    **dict.fromkeys(ACTIVATIONS, lambda module, inputs: pointwise(by_torch(module), inputs)),
    **dict.fromkeys(UNCHANGED, lambda module, inputs: inputs),
}
FUNCTIONS = {
    "add": add,
    "iadd": add,
    "mul": multiply,
    "cat": concatenate,
    "relu": lambda inputs, **_: pointwise(reference.relu, inputs),
    "adaptive_avg_pool2d": adaptive_average_pool,
    "flatten": flatten,
}

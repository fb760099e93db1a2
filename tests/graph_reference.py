"""Layer masking of any torchvision network, module by module: the oracle of whole networks.

torch.fx gives the network's graph as torchvision defines it; every node follows the plain rules of
`tests.layer_masking_reference`. So nothing of a network's definition here is used, nor any
shortcut. One image at a time, float64. A module or function without a rule is a KeyError.
"""

from typing import NamedTuple

import numpy as np
import torch
from torch import nn

from tests import layer_masking_reference as reference
from tests.torch_reference import torchvision

LayerNorm2d = torchvision.models.convnext.LayerNorm2d
UNCHANGED = (
    nn.Dropout,
    torchvision.ops.StochasticDepth,
    torchvision.ops.Permute,  # of ConvNeXt: channels last and back; here they always are
)


class Value(NamedTuple):
    """Activations `[H, W, C]` and their mask `[H, W]`."""

    x: np.ndarray
    mask: np.ndarray


class Tracer(torch.fx.Tracer):
    def is_leaf_module(self, module, name):
        return isinstance(module, (*UNCHANGED, LayerNorm2d)) or super().is_leaf_module(module, name)


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
            fills = {"fill": fill} if isinstance(module, nn.Conv2d) else {}
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


def linear(module, inputs):
    weight, bias = array(module.weight), array(module.bias)
    return pointwise(lambda x: x @ weight.T + bias, inputs)


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
MODULES = {
    nn.Conv2d: conv,
    nn.BatchNorm2d: batch_norm,
    nn.LayerNorm: layer_norm,
    LayerNorm2d: layer_norm,
    nn.Linear: linear,
    nn.MaxPool2d: pool(reference.max_pool),
    nn.AvgPool2d: pool(reference.average_pool),
    nn.AdaptiveAvgPool2d: lambda m, inputs: adaptive_average_pool(inputs, m.output_size),
    nn.Flatten: lambda module, inputs: flatten(inputs),
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

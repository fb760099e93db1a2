"""A small network in lmjax's layers and the same in torch, for tests of class activation maps."""

import functools

import jax
import numpy as np
from flax import linen as nn

from lmjax.masking import layers
from lmjax.models import Classifier, Preprocessing, checkpoints
from lmjax.models.layers import Network, relu

PREPROCESSING = Preprocessing(mean=(0.5, 0.4, 0.3), std=(0.2, 0.25, 0.3))
LAYER = "block"


class Block(nn.Module):
    """A residual block with stride 2, whose convolutions and norms have biases."""

    conv: functools.partial
    norm: functools.partial

    @nn.compact
    def __call__(self, x):
        y = self.norm(name="bn")(self.conv(6, 3, 2, use_bias=True, name="conv")(x))
        return relu(layers.residual(y, self.conv(6, 1, 2, name="skip")(x)))


class Small(Network):
    """Convolution, residual block, mean of a bent function, classifier."""

    bent: bool = True

    @nn.compact
    def __call__(self, inputs):
        x = self.conv(5, 3, use_bias=True, name="conv1")(self.begin(inputs))
        x = relu(self.norm(name="bn1")(x))
        x = Block(self.conv, self.norm, name=LAYER)(x)
        x = layers.pointwise(x, lambda x: x / (1 + x)) if self.bent else x
        return self.classify(layers.global_average_pool(x), "fc")


def torch_network(num_classes: int, seed: int = 0):
    """The network in torch, of random weights; `layer` is where maps are made."""
    import torch

    class TorchBlock(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = torch.nn.Conv2d(5, 6, 3, stride=2, padding=1)
            self.skip = torch.nn.Conv2d(5, 6, 1, stride=2, bias=False)
            self.bn = torch.nn.BatchNorm2d(6)

        def forward(self, x):
            return torch.relu(self.bn(self.conv(x)) + self.skip(x))

    class TorchSmall(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.conv1 = torch.nn.Conv2d(3, 5, 3, padding=1)
            self.bn1 = torch.nn.BatchNorm2d(5)
            self.block = TorchBlock()
            self.fc = torch.nn.Linear(6, num_classes)

        def forward(self, x):
            x = self.block(torch.relu(self.bn1(self.conv1(x))))
            return self.fc((x / (1 + x)).mean(dim=(2, 3)))

    network, generator = TorchSmall().eval(), torch.Generator().manual_seed(seed)
    for name, value in network.state_dict().items():
        if value.is_floating_point():
            value.normal_(0, 0.5, generator=generator)
            if name.endswith("running_var"):
                value.abs_().add_(0.5)
            if name == "fc.weight":
                value.mul_(20)
    return network


def ported(network) -> Classifier:
    """The torch network as a classifier."""
    module = Small(num_classes=len(network.fc.bias))
    state = {name: value.numpy() for name, value in network.state_dict().items()}
    variables = checkpoints.to_variables(state, checkpoints.abstract_variables(module))
    return Classifier(jax.device_put(variables), module, PREPROCESSING)


def torch_input(classifier: Classifier, image: np.ndarray):
    """A picture `[H, W, C]` as the torch network takes it."""
    import torch

    return torch.tensor(np.asarray(classifier.normalise(image))).permute(2, 0, 1)[None]

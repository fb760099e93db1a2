"""Biases of a network's layers, and what logits change where a layer's output is shifted."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from lmjax.masking.masked import Masked

Maps = dict[str, jax.Array]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class Biases:
    """The plain network of a classifier, with its biases as arguments; see `Classifier.biases`.

    A layer counts that has a parameter `bias`: convolutions, dense layers at every position, norms;
    not the last ones, whose output has no positions. Its bias is its output for an input of 0,
    which for a batch norm holds the running mean too.
    """

    classifier: Any

    def __call__(self, inputs: jax.Array, shifts: Maps | None = None) -> tuple[jax.Array, Maps]:
        """Returns the logits, and the bias of each layer.

        Args:
          inputs: normalised image `[H, W, C]`.
          shifts: for each layer `[h, w, D]`, added to its output; None adds nothing.

        Returns:
          logits: `[K]`.
          biases: for each layer, by its path, `[h, w, D]`.
        """
        biases: Maps = {}
        busy = False  # a norm calls the one that it is made of

        def shift(proceed, args, kwargs, context):
            nonlocal busy
            module = context.module
            if busy or not _has_bias(context):
                return proceed(*args, **kwargs)
            busy = True
            output = proceed(*args, **kwargs)
            if isinstance(output, Masked):
                zero = args[0]._replace(x=jnp.zeros_like(args[0].x))
                alone: Any = module.clone(parent=None)
                bias: Any = alone.apply(module.variables, zero, *args[1:], **kwargs)
                name = "/".join(module.path)
                biases[name] = bias.x[0]
                if shifts is not None:
                    output = output._replace(x=output.x + shifts[name][None])
            busy = False
            return output

        with nn.intercept_methods(shift):
            logits = self.classifier.apply(inputs[None])[0]
        return logits, biases


def _has_bias(context: nn.module.InterceptorContext) -> bool:
    return context.method_name == "__call__" and context.module.has_variable("params", "bias")

"""Layers find their parameters without tracing initialisers, and shapes are known of any module."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from flax.errors import NameInUseError, ScopeParamNotFoundError, ScopeParamShapeError

from lmjax.masking import Masked
from lmjax.models import checkpoints
from lmjax.models.layers import BatchNorm, Conv, Layer, Network

IMAGES = np.ones((1, 4, 4, 3), np.float32)


class Scale(Layer):
    initialiser: Callable

    @nn.compact
    def __call__(self, inputs: Masked) -> Masked:
        shape = (1, 1, 1, inputs.x.shape[-1])
        return Masked(inputs.x * self.param("scale", self.initialiser, shape))


class Tiny(Network):
    sizes: Any = (2,)

    @nn.compact
    def __call__(self, inputs):
        x = self.norm(name="bn")(self.conv(self.sizes[0], 3, name="conv")(self.begin(inputs)))
        return self.classify(x.x.mean((1, 2)), "fc")


def test_initialisers_run_where_a_parameter_is_made_only():
    shapes = []

    def twos(key, shape):
        shapes.append(shape)
        return jnp.full(shape, 2.0)

    module = Scale(twos)
    variables = module.init(jax.random.key(0), Masked(IMAGES))
    assert shapes == [(1, 1, 1, 3)]
    np.testing.assert_array_equal(module.apply(variables, Masked(IMAGES)).x, 2 * IMAGES)
    assert shapes == [(1, 1, 1, 3)]


def test_given_parameters_must_have_the_shape():
    with pytest.raises(ScopeParamShapeError, match="kernel"):
        Conv(2, 3).apply({"params": {"kernel": np.ones((3, 3, 4, 2))}}, Masked(IMAGES))
    statistics = {"mean": np.zeros(3), "var": np.ones(3)}
    wrong = {"params": {"scale": np.ones(4), "bias": np.ones(4)}, "batch_stats": statistics}
    with pytest.raises(ScopeParamShapeError, match="scale"):
        BatchNorm(use_running_average=True).apply(wrong, Masked(IMAGES))


class Named(Layer):
    names: tuple[str, ...]
    argument: Any = (3,)

    @nn.compact
    def __call__(self, x):
        def init(key, argument):
            return jnp.full(argument if isinstance(argument, tuple) else (3,), 0.5)

        return sum((self.param(name, init, self.argument) for name in self.names), x)


def test_names_are_given_once():
    with pytest.raises(NameInUseError, match="scale"):
        Named(("scale", "scale")).init(jax.random.key(0), 0.0)
    with pytest.raises(NameInUseError, match="scale"):
        Named(("scale", "scale")).apply({"params": {"scale": np.ones(3)}}, 0.0)


def test_initialisers_may_take_something_other_than_a_shape():
    module = Named(("a", "b"), argument=0.07)
    np.testing.assert_array_equal(
        module.apply(module.init(jax.random.key(0), 0.0), 0.0), np.ones(3)
    )


def test_parameters_must_be_given():
    with pytest.raises(ScopeParamNotFoundError, match="bias"):
        Conv(2, 3, use_bias=True).apply(
            {"params": {"kernel": np.ones((3, 3, 3, 2))}}, Masked(IMAGES)
        )


@pytest.mark.parametrize("sizes", [tuple, np.array])  # modules with a hash, and without
def test_shapes_are_the_callers_own(sizes):
    module = Tiny(sizes=sizes([2]))
    first = checkpoints.abstract_variables(module)
    assert first["params"]["conv"]["kernel"].shape == (3, 3, 3, 2)
    del first["params"]["conv"]
    assert "conv" in checkpoints.abstract_variables(module)["params"]
    other = checkpoints.abstract_variables(module, in_channels=1)
    assert other["params"]["conv"]["kernel"].shape == (3, 3, 1, 2)
    wider = checkpoints.abstract_variables(Tiny(sizes=sizes([5])))
    assert wider["params"]["conv"]["kernel"].shape == (3, 3, 3, 5)

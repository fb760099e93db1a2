"""Networks that know nothing of masks, from eight libraries: `NETWORKS`, by name.

Weights are random, and drawn so that the image reaches the logits (`randomised` for torch's
modules, `drawn` for all others).
"""

import math
import os
import re
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

os.environ.setdefault("KERAS_BACKEND", "jax")

import jax
import numpy as np

from lmjax.models.pytorch import import_module

Function = Callable[[Any, jax.Array], jax.Array]
CLASSES = 10


class Foreign(NamedTuple):
    """A network of another library.

    Attributes:
      library: what it is written in.
      make: gives the function `(params, images) -> logits` and its parameters, for a size.
      size: side of its images, in pixels.
      layout: of the images that the function takes.
      quick: whether it is among those tested on every run.
    """

    library: str
    make: Callable[[int], tuple[Function, Any]]
    size: int = 64
    layout: str = "NHWC"
    quick: bool = False


def zeros(make: Callable[..., Any], *args: Any) -> Any:
    """What a function returns, with zeros for its arrays: nothing is computed to be drawn anew."""
    shapes = jax.eval_shape(make, *args)
    return jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes)


def drawn(params: Any, *, out: int = -1) -> Any:
    """Random weights and statistics in the place of fresh ones.

    Args:
      params: a pytree; names of leaves tell kernels, scales, biases, means and variances.
      out: the axis of a kernel's outputs.
    """
    rng = np.random.default_rng(0)

    def draw(path, leaf):
        if not isinstance(leaf, jax.Array | np.ndarray) or leaf.dtype != np.float32:
            return leaf
        name = jax.tree_util.keystr(path).lower()
        if "var" in name:
            value = rng.uniform(0.5, 1.5, leaf.shape)
        elif re.search(r"(se_expand|excite.conv_1)/bias", name):  # gates that let the image through
            value = np.full(leaf.shape, 3.0)
        elif any(part in name for part in ("mean", "bias", "beta", "offset", "'b'")):
            value = rng.normal(0, 0.1, leaf.shape)
        elif leaf.ndim < 2 or "scale" in name:
            value = rng.uniform(0.5, 1, leaf.shape)
        else:
            depthwise = leaf.ndim == 4 and leaf.shape[-1] == 1  # in Keras
            outputs = math.prod(leaf.shape[2:]) if depthwise else leaf.shape[out]
            value = rng.normal(0, (2 * outputs / leaf.size) ** 0.5, leaf.shape)
        return jax.device_put(np.asarray(value, leaf.dtype))

    return jax.tree_util.tree_map_with_path(draw, params)


def keras(name: str, *, most: float = 1.0) -> Callable[[int], tuple[Function, Any]]:
    """One of `keras.applications`; `most` is 255 where it divides by that itself."""

    def make(size):
        import keras

        build = getattr(keras.applications, name)
        model = build(
            input_shape=(size, size, 3), weights=None, classes=CLASSES, classifier_activation=None
        )
        apply, params = keras_function(model)
        return lambda params, images: apply(params, most * images), params

    return make


def keras_function(model: Any) -> tuple[Function, Any]:
    """A Keras model as a function."""
    params = {v.path: v.value for v in model.variables}

    def apply(params, images):
        trained = [params[v.path] for v in model.trainable_variables]
        fixed = [params[v.path] for v in model.non_trainable_variables]
        return model.stateless_call(trained, fixed, images, training=False)[0]

    return apply, drawn(params)


def haiku(name: str, *args: Any, **options: Any) -> Callable[[int], tuple[Function, Any]]:
    """One of `haiku.nets`."""

    def make(size):
        import haiku as hk

        def forward(images, is_training):
            return getattr(hk.nets, name)(*args, **options)(images, is_training)

        network = hk.transform_with_state(forward)
        blank = jax.ShapeDtypeStruct((1, size, size, 3), np.float32)
        params = zeros(lambda x: network.init(jax.random.key(0), x, True), blank)
        return lambda params, x: network.apply(*params, None, x, False)[0], drawn(params)

    return make


def flaxmodels(name: str, **options: Any) -> Callable[[int], tuple[Function, Any]]:
    """A Flax Linen network of flaxmodels."""

    def make(size):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import flaxmodels

            network = getattr(flaxmodels, name)(
                output="logits", pretrained=None, normalize=False, num_classes=CLASSES, **options
            )
        blank = jax.ShapeDtypeStruct((1, size, size, 3), np.float32)
        params = zeros(lambda x: network.init(jax.random.key(0), x, train=False), blank)
        return lambda params, x: network.apply(params, x, train=False), drawn(params)

    return make


def equinox_groups(size: int) -> tuple[Function, Any]:
    """Equinox: residual blocks with group norm, and an average pool."""
    import equinox as eqx

    class Block(eqx.Module):
        conv: eqx.nn.Conv2d
        norm: eqx.nn.GroupNorm

        def __init__(self, features, key):
            self.conv = eqx.nn.Conv2d(features, features, 3, padding=1, key=key)
            self.norm = eqx.nn.GroupNorm(4, features)

        def __call__(self, x):
            return jax.nn.relu(x + self.norm(self.conv(x)))

    class Net(eqx.Module):
        stem: eqx.nn.Conv2d
        blocks: list
        pool: eqx.nn.AvgPool2d
        head: eqx.nn.Linear

        def __init__(self, key):
            keys = jax.random.split(key, 4)
            self.stem = eqx.nn.Conv2d(3, 16, 3, 2, padding=1, key=keys[0])
            self.blocks = [Block(16, keys[1]), Block(16, keys[2])]
            self.pool = eqx.nn.AvgPool2d(2, 2)
            self.head = eqx.nn.Linear(16, CLASSES, key=keys[3])

        def __call__(self, x):
            x = jax.nn.gelu(self.stem(x))
            for block in self.blocks:
                x = self.pool(block(x))
            return self.head(x.mean((1, 2)))

    params, static = eqx.partition(drawn(Net(jax.random.key(0)), out=0), eqx.is_array)
    return lambda params, images: jax.vmap(eqx.combine(params, static))(images), params


def equinox_batches(size: int) -> tuple[Function, Any]:
    """Equinox: batch norm with running statistics, max pool, an adaptive pool and a dense layer."""
    import equinox as eqx

    class Net(eqx.Module):
        conv1: eqx.nn.Conv2d
        norm: eqx.nn.BatchNorm
        conv2: eqx.nn.Conv2d
        head: eqx.nn.MLP

        def __init__(self, key):
            keys = jax.random.split(key, 3)
            self.conv1 = eqx.nn.Conv2d(3, 12, 5, padding=2, use_bias=False, key=keys[0])
            self.norm = eqx.nn.BatchNorm(12, "batch", mode="batch", inference=True)
            self.conv2 = eqx.nn.Conv2d(12, 24, 3, groups=4, dilation=2, padding="SAME", key=keys[1])
            self.head = eqx.nn.MLP(24 * 4, CLASSES, 32, 1, key=keys[2])

        def __call__(self, x, state):
            x, state = self.norm(self.conv1(x), state)
            x = eqx.nn.MaxPool2d(2, 2)(jax.nn.silu(x))
            x = jax.nn.relu(self.conv2(x))
            x = eqx.nn.AdaptiveAvgPool2d(2)(x)
            return self.head(x.ravel()), state

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model, state = eqx.nn.make_with_state(Net)(jax.random.key(0))

    params, static = eqx.partition((drawn(model, out=0), state), eqx.is_array)

    def apply(params, images):
        model, state = eqx.combine(params, static)
        return jax.vmap(lambda image: model(image, state)[0])(images)

    return apply, params


def nnx_residual(size: int) -> tuple[Function, Any]:
    """Flax NNX: batch norm, a strided shortcut, squeeze-and-excitation."""
    from flax import nnx

    class Block(nnx.Module):
        def __init__(self, inputs, features, *, rngs):
            self.conv1 = nnx.Conv(inputs, features, (3, 3), (2, 2), use_bias=False, rngs=rngs)
            self.norm1 = nnx.BatchNorm(features, use_running_average=True, rngs=rngs)
            self.conv2 = nnx.Conv(features, features, (3, 3), padding=1, rngs=rngs)
            self.shortcut = nnx.Conv(inputs, features, (1, 1), (2, 2), rngs=rngs)
            self.squeeze = nnx.Linear(features, 4, rngs=rngs)
            self.excite = nnx.Linear(4, features, rngs=rngs)

        def __call__(self, x):
            y = self.conv2(nnx.relu(self.norm1(self.conv1(x))))
            gate = nnx.relu(self.squeeze(y.mean((1, 2), keepdims=True)))
            return nnx.relu(y * nnx.sigmoid(self.excite(gate)) + self.shortcut(x))

    class Net(nnx.Module):
        def __init__(self, rngs):
            self.stem = nnx.Conv(3, 16, (7, 7), (2, 2), padding=3, rngs=rngs)
            self.block1 = Block(16, 24, rngs=rngs)
            self.block2 = Block(24, 32, rngs=rngs)
            self.head = nnx.Linear(32, CLASSES, rngs=rngs)

        def __call__(self, x):
            x = nnx.max_pool(nnx.relu(self.stem(x)), (3, 3), (2, 2), "SAME")
            return self.head(self.block2(self.block1(x)).mean((1, 2)))

    return nnx_function(lambda: Net(nnx.Rngs(0)))


def nnx_dense(size: int) -> tuple[Function, Any]:
    """Flax NNX: depthwise convolutions, layer norm, concatenation, a resize, features flattened."""
    from flax import nnx

    class Net(nnx.Module):
        def __init__(self, rngs):
            self.patch = nnx.Conv(3, 16, (4, 4), (4, 4), padding="VALID", rngs=rngs)
            self.depthwise = nnx.Conv(16, 16, (5, 5), feature_group_count=16, rngs=rngs)
            self.norm = nnx.LayerNorm(16, rngs=rngs)
            self.expand = nnx.Linear(16, 32, rngs=rngs)
            self.project = nnx.Linear(32, 16, rngs=rngs)
            self.coarse = nnx.Conv(16, 16, (3, 3), (2, 2), padding=1, rngs=rngs)
            self.head = nnx.Linear(32 * 16, CLASSES, rngs=rngs)

        def __call__(self, x):
            x = self.patch(x)
            x = x + self.project(nnx.gelu(self.expand(self.norm(self.depthwise(x)))))
            low = nnx.relu(self.coarse(x))
            x = jax.numpy.concatenate([x, jax.image.resize(low, x.shape, "nearest")], axis=-1)
            x = nnx.avg_pool(x, (4, 4), (4, 4))
            return self.head(x.reshape(len(x), -1))

    return nnx_function(lambda: Net(nnx.Rngs(0)))


def nnx_function(make: Callable[[], Any]) -> tuple[Function, Any]:
    """An NNX model as a function."""
    from flax import nnx

    graph, shapes = nnx.split(nnx.eval_shape(make))
    state = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes)
    return lambda state, images: nnx.merge(graph, state)(images), drawn(state)


def torchvision(name: str, **options: Any) -> Callable[[int], tuple[Function, Any]]:
    """A network of torchvision."""

    def make(size):
        from tests.support.torch_reference import torchvision

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            module = getattr(torchvision.models, name)(num_classes=CLASSES, **options)
        return torch_function(module, size)

    return make


def timm(name: str, **options: Any) -> Callable[[int], tuple[Function, Any]]:
    """A network of timm."""

    def make(size):
        from tests.support.torch_reference import timm

        return torch_function(timm.create_model(name, num_classes=CLASSES, **options), size)

    return make


def torch_function(module: Any, size: int) -> tuple[Function, Any]:
    """A PyTorch module as a function."""
    from tests.support.torch_reference import randomised

    randomised(module.eval(), 0)
    for part in module.modules():  # gates that let the image through
        gate = getattr(part, "conv_expand", getattr(part, "fc2", None))
        if type(part).__name__ in ("SqueezeExcite", "SEModule") and gate is not None:
            gate.bias.data += 3
    return import_module(module, [1, 3, size, size], check=False)


def u_net(upsample: str) -> Callable[[int], tuple[Function, Any]]:
    """A U-Net in torch; its map of classes is averaged over positions.

    Args:
      upsample: `"transposed"` convolutions, or `"bilinear"` interpolation.
    """

    def make(size):
        import torch
        from torch import nn

        def conv(inputs, features):
            return nn.Sequential(
                nn.Conv2d(inputs, features, 3, padding=1), nn.BatchNorm2d(features), nn.ReLU()
            )

        def up(features):
            if upsample == "transposed":
                return nn.ConvTranspose2d(2 * features, features, 2, stride=2)
            bigger = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False)
            return nn.Sequential(bigger, nn.Conv2d(2 * features, features, 1))

        class UNet(nn.Module):
            def __init__(self):
                super().__init__()
                self.down1, self.down2, self.bottom = conv(3, 8), conv(8, 16), conv(16, 32)
                self.up2, self.merge2 = up(16), conv(32, 16)
                self.up1, self.merge1 = up(8), conv(16, 8)
                self.head = nn.Conv2d(8, CLASSES, 1)

            def forward(self, x):
                fine = self.down1(x)
                coarse = self.down2(nn.functional.max_pool2d(fine, 2))
                x = self.bottom(nn.functional.max_pool2d(coarse, 2))
                x = self.merge2(torch.cat([self.up2(x), coarse], 1))
                x = self.merge1(torch.cat([self.up1(x), fine], 1))
                return self.head(x).mean((2, 3))

        torch.manual_seed(0)
        return torch_function(UNet(), size)

    return make


def _by_name() -> dict[str, Foreign]:
    networks = {
        "two residual blocks, group norm": Foreign("Equinox", equinox_groups, 32, "NCHW", True),
        "grouped, dilated, batch norm": Foreign("Equinox", equinox_batches, 32, "NCHW", True),
        "residual, squeeze-and-excitation": Foreign("Flax NNX", nnx_residual, 64, quick=True),
        "depthwise, resize, flatten": Foreign("Flax NNX", nnx_dense, 64, quick=True),
        "U-Net, transposed convolutions": Foreign("PyTorch", u_net("transposed"), 32, "NCHW", True),
        "U-Net, bilinear": Foreign("PyTorch", u_net("bilinear"), 32, "NCHW", True),
    }
    for name in ("MobileNetV2", "MobileNetV3Small", "EfficientNetB0", "ResNet50V2", "ConvNeXtTiny"):
        most = 255 if name in ("MobileNetV3Small", "EfficientNetB0", "ConvNeXtTiny") else 1
        networks[name] = Foreign("Keras", keras(name, most=most))
    for name in ("DenseNet121", "InceptionV3", "Xception", "InceptionResNetV2", "NASNetMobile"):
        networks[name] = Foreign("Keras", keras(name), 64 if name == "DenseNet121" else 96)
    networks["ResNet18"] = Foreign("Haiku", haiku("ResNet18", CLASSES), 64)
    networks["MobileNetV1"] = Foreign("Haiku", haiku("MobileNetV1", num_classes=CLASSES), 64)
    networks["ResNet18 "] = Foreign("flaxmodels", flaxmodels("ResNet18"), 64, quick=True)
    networks["VGG16"] = Foreign("flaxmodels", flaxmodels("VGG16"), 224)
    for name in ("shufflenet_v2_x0_5", "mnasnet0_5", "regnet_y_400mf", "efficientnet_b0"):
        networks[name] = Foreign("torchvision", torchvision(name), 64, "NCHW")
    options: dict[str, Any] = {"init_weights": False, "aux_logits": False}
    networks["googlenet"] = Foreign("torchvision", torchvision("googlenet", **options), 64, "NCHW")
    # The auxiliary logits are there while it is made, and are not exported.
    options = {"init_weights": False}
    networks["inception_v3"] = Foreign(
        "torchvision", torchvision("inception_v3", **options), 96, "NCHW"
    )
    networks["squeezenet1_1"] = Foreign(
        "torchvision", torchvision("squeezenet1_1"), 64, "NCHW", True
    )
    for name in _TIMM:
        networks[name] = Foreign("timm", timm(name), 64, "NCHW")
    return {
        name.strip() if name.strip() not in networks else name: n for name, n in networks.items()
    }


_TIMM = (
    *("resnest14d", "dpn48b", "hrnet_w18_small", "cs3darknet_focus_s", "repvgg_a0", "ghostnet_050"),
    *("mixnet_s", "convmixer_768_32", "eca_nfnet_l0", "xception41", "pnasnet5large", "dla46x_c"),
    *("selecsls42", "ese_vovnet19b_slim", "tinynet_e", "mobileone_s0", "fbnetc_100"),
    *("rexnet_100", "semnasnet_050", "gernet_s", "skresnet18", "res2net50_14w_8s"),
    *("legacy_seresnet18", "edgenext_xx_small"),
)

NETWORKS = _by_name()

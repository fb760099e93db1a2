"""Imported networks against torch, and what the importer refuses."""

import sys
from functools import partial

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from torch import nn

from lmjax.models.pytorch import ModuleImportError, TorchGraph, export, import_module
from tests.support.torch_reference import (
    build,
    random_network,
    randomised,
    timm,
    torchvision,
)


def noise(count, size, channels=3):
    return np.random.default_rng(0).standard_normal((count, channels, size, size), np.float32)


def error(module, graph, params, images):
    """The largest difference of two outputs over the largest output."""
    with torch.no_grad():
        expected = module(torch.from_numpy(images)).numpy()
    value = jax.jit(graph)(params, images)
    assert value.shape == expected.shape
    assert value.dtype == jnp.float32
    return np.abs(value - expected).max() / np.abs(expected).max()


# With every kind of layer of their families, SqueezeNet whole; at the size of their images.
SHALLOW = {
    "squeezenet": (partial(torchvision.models.squeezenet1_1, weights=None), 96),
    "convnext": (partial(timm.create_model, "convnext_atto", depths=(1, 1, 1, 1)), 64),
    "shufflenet": (
        partial(torchvision.models.ShuffleNetV2, [2, 2, 2], [24, 48, 96, 192, 1024]),
        64,
    ),
}
WHOLE = [
    *[("resnet18", 64), ("shufflenet_v2_x0_5", 64), ("convnext_atto", 64)],
    *[("mobilenet_v3_small", 64), ("repvgg_a0", 64)],
    *[("densenet121", 64), ("efficientnet_b0", 64), ("vgg11", 64), ("regnet_y_400mf", 64)],
    *[("mnasnet0_5", 64), ("resnest14d", 64), ("ghostnet_050", 64), ("mixnet_s", 64)],
    *[("vit_tiny_patch16_224", 224), ("swin_tiny_patch4_window7_224", 224), ("nfnet_l0", 64)],
    *[("resnetv2_50x1_bit", 96), ("dpn48b", 64), ("hrnet_w18_small", 64), ("eca_resnet33ts", 64)],
    *[("convmixer_768_32", 64), ("inception_v3", 96), ("cspresnet50", 64), ("levit_128s", 224)],
]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "size"), WHOLE)
def test_networks_agree_with_torch(name, size):
    options = {"init_weights": False} if name == "inception_v3" else {}  # else it warns
    check_import(build(name, 0, **options), size)


@pytest.mark.parametrize("name", SHALLOW)
def test_shallow_networks_agree_with_torch(name):
    make, size = SHALLOW[name]
    check_import(random_network(make, 0), size)


def check_import(module, size):
    graph, params = import_module(module, [1, 3, size, size], check=False)
    assert graph.batched
    assert error(module, graph, params, noise(3, size)) < 1e-5


@pytest.fixture(scope="module")
def small():
    """A small network of everything that matters here, and its import."""
    torch.manual_seed(0)
    block = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU())
    head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 5))
    module = randomised(nn.Sequential(nn.Conv2d(3, 4, 3, 2), nn.Sequential(block), head), 0)
    return module, *import_module(module, torch.zeros(1, 3, 16, 16))


@pytest.mark.parametrize("count", [1, 2, 7])
def test_any_number_of_images(small, count):
    assert error(*small, noise(count, 16)) < 1e-5


def test_parameters_have_keys_of_the_state_dict_and_are_arguments(small):
    module, graph, params = small
    state = module.state_dict()
    assert set(params) == {key for key, value in state.items() if value.is_floating_point()}
    for key, value in params.items():
        assert value.dtype == jnp.float32
        np.testing.assert_array_equal(value, state[key].numpy())
    images = noise(2, 16)
    other = {**params, "2.2.bias": params["2.2.bias"] + 1}
    np.testing.assert_allclose(graph(other, images), graph(params, images) + 1, rtol=1e-5)
    assert not jax.make_jaxpr(graph)(params, images).consts


def test_gradients_are_those_of_torch(small):
    module, graph, params = small
    images = noise(2, 16)
    gradients = jax.grad(lambda p: (graph(p, images) ** 2).sum())(params)
    (module(torch.from_numpy(images)) ** 2).sum().backward()
    for key, parameter in module.named_parameters():
        bound = 1e-4 * float(parameter.grad.abs().max())
        np.testing.assert_allclose(gradients[key], parameter.grad, atol=bound, err_msg=key)
    assert all(jnp.isfinite(g).all() for g in gradients.values())


def test_operations_carry_the_paths_of_their_modules(small):
    _, graph, params = small
    jaxpr = jax.make_jaxpr(graph)(params, noise(1, 16))
    paths = [str(e.source_info.name_stack) for e in jaxpr.eqns if "conv" in e.primitive.name]
    assert paths == ["0", "1.0.0"]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_dtypes_are_those_of_the_arguments_under_strict_promotion(small, dtype):
    _, graph, params = small
    params, images = jax.tree.map(lambda x: jnp.asarray(x, dtype), (params, noise(2, 16)))
    with jax.numpy_dtype_promotion("strict"):
        assert jax.eval_shape(graph, params, images).dtype == dtype


def test_graphs_are_exported_for_other_devices(small):
    _, graph, params = small
    exported = jax.export.export(jax.jit(graph), platforms=("cuda", "tpu"))(params, noise(2, 16))
    assert exported.platforms == ("cuda", "tpu")
    assert exported.out_avals[0].shape == (2, 5)


def test_graphs_are_static(small):
    module, graph, _ = small
    again, params = import_module(module, [1, 3, 16, 16], check=False)
    assert graph == graph
    assert graph != again
    assert hash(graph) != hash(again)
    assert repr(graph) == "TorchGraph(Sequential, [N, 3, 16, 16], 9 operations)"
    logits = jax.jit(lambda f, p, x: f(p, x), static_argnums=0)(graph, params, noise(1, 16))
    assert logits.shape == (1, 5)
    with pytest.raises(AttributeError):
        graph.module = "another"


def test_graphs_run_without_torch(small, monkeypatch):
    _, graph, params = small
    monkeypatch.setitem(sys.modules, "torch", None)
    assert graph(params, noise(2, 16)).shape == (2, 5)
    with pytest.raises(ImportError, match=r'pip install "lmjax\[torch\]"'):
        import_module(None, [1, 3, 16, 16])  # pyright: ignore


class Function(nn.Module):
    def __init__(self, function, **parts):
        super().__init__()
        self.function = function
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, x):
        return self.function(self, x)


def test_outputs_keep_their_structure():
    module = Function(lambda self, x: {"map": x + 1, "all": (x.mean((2, 3)), [x[:, 0], None])})
    graph, params = import_module(module.eval(), [1, 3, 8, 8])
    output = graph(params, noise(4, 8))
    assert {key: jax.tree.map(jnp.shape, value) for key, value in output.items()} == {
        "map": (4, 3, 8, 8),
        "all": ((4, 3), [(4, 8, 8), None]),
    }


def test_integers_are_constants_and_floating_constants_are_parameters():
    module = Function(lambda self, x: x[:, self.order] * self.scale + torch.tensor([0.5, 1, 2, 3]))
    module.register_buffer("order", torch.tensor([2, 0, 1]))
    module.register_buffer("scale", torch.tensor(3.0), persistent=False)
    module.register_buffer("unused", torch.tensor(3.0))
    _, params = import_module(module.eval(), [1, 3, 4, 4])
    assert sorted(value.shape for value in params.values()) == [(), (4,)]
    assert "scale" in params
    assert not {"order", "unused"} & set(params)


def test_weights_that_are_normalised_in_the_module_are():
    def standardised(self, x):
        weight = self.conv.weight
        flat = weight.reshape(1, len(weight), -1)
        flat = nn.functional.batch_norm(flat, None, None, training=True, momentum=0.0)
        return nn.functional.conv2d(x, flat.reshape_as(weight))

    import_module(Function(standardised, conv=nn.Conv2d(3, 4, 3)).eval(), [1, 3, 8, 8])


def test_modules_that_take_one_image_are_mapped_over_images():
    module = Function(lambda self, x: x.reshape(3, 8, 8).sum((1, 2))[None] * 2).eval()
    graph, params = import_module(module, [1, 3, 8, 8])
    assert not graph.batched
    images = noise(3, 8)
    np.testing.assert_allclose(graph(params, images), 2 * images.sum((2, 3)), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (
            nn.Sequential(nn.ReLU(), nn.BatchNorm2d(3)).train(),
            r"Sequential is in training mode \(the module itself, 0, 1\).*call module.eval",
        ),
        (
            nn.BatchNorm2d(3, track_running_stats=False).eval(),
            "statistics of their batch, so images change each other's outputs",
        ),
        (
            nn.Conv2d(3, 4, 3).half().eval(),
            "weight is torch.float16 on cpu; must be torch.float32 on",
        ),
        (
            Function(lambda self, x: x if x.sum() > 0 else -x).eval(),
            "torch.export cannot export Function: Could not guard on data-dependent expression",
        ),
        (
            Function(lambda self, x: x - x.mean(0)).eval(),
            "either its images change each other's outputs in a batch, or the import is wrong",
        ),
        (
            Function(lambda self, x: x.mean()).eval(),
            r"returns an array of shape \[\] for one image; must return arrays \[N, ...\]",
        ),
        (
            Function(lambda self, x: x[:, :, :5] + x).eval(),
            r"Function fails in torch on an example of shape \[1, 3, 8, 8\]: The size of tensor a",
        ),
    ],
    ids=[
        "training",
        "batch statistics",
        "half",
        "control flow",
        "mixed images",
        "no images",
        "shapes",
    ],
)
def test_modules_that_cannot_be_imported_say_why(module, message):
    with pytest.raises(ModuleImportError, match=message):
        import_module(module, [1, 3, 8, 8])


@pytest.mark.parametrize(
    ("example", "message"),
    [
        ([3, 8, 8], r"example is torch.float32 of shape \[3, 8, 8\]; must be a float tensor"),
        (torch.zeros(1, 3, 8, 8, dtype=torch.int32), "example is torch.int32"),
        ([0, 3, 8, 8], r"shape \[0, 3, 8, 8\]"),
    ],
)
def test_examples_are_checked(example, message):
    with pytest.raises(ValueError, match=message):
        import_module(nn.Identity().eval(), example)


def test_modules_must_be_modules():
    with pytest.raises(TypeError, match=r"module is a function; must be a torch\.nn\.Module"):
        import_module(lambda x: x, [1, 3, 8, 8])  # pyright: ignore


def test_images_and_parameters_are_checked(small):
    _, graph, params = small
    with pytest.raises(ValueError, match=r"imported for \[N, 3, 16, 16\]"):
        graph(params, noise(1, 18))
    with pytest.raises(ValueError, match=r"images have shape \(1, 16, 16, 3\)"):
        graph(params, noise(1, 16).transpose(0, 2, 3, 1))
    with pytest.raises(ValueError, match=r"params lack 2\.2\.bias; must"):
        graph({key: value for key, value in params.items() if key != "2.2.bias"}, noise(1, 16))


def test_a_wrong_import_is_found(small, monkeypatch):
    module, *_ = small
    right = export._translated

    def wrong(*arguments):
        graph, params = right(*arguments)
        return graph, {**params, "2.2.bias": params["2.2.bias"] + 1}

    monkeypatch.setattr(export, "_translated", wrong)
    with pytest.raises(
        ModuleImportError, match="differs from the module in torch on single images, by"
    ):
        import_module(module, [1, 3, 16, 16])
    graph, _ = import_module(module, [1, 3, 16, 16], check=False)
    assert isinstance(graph, TorchGraph)

"""Each operation against torch, on small modules, by families."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from lmjax.models.pytorch import UnsupportedOperationError, import_module, register_op
from lmjax.models.pytorch.ops import supported, table


class Several(nn.Module):
    """Several modules or functions of the same images; returns all their outputs."""

    def __init__(self, *functions):
        super().__init__()
        self.functions = functions
        self.parts = nn.ModuleList(f for f in functions if isinstance(f, nn.Module))

    def forward(self, x):
        return [function(x) for function in self.functions]


def assert_agree(functions, shape=(2, 4, 11, 13), *, tolerance=1e-5):
    """All functions as imported equal those in torch, on other images, one more than exported."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = Several(
            *(
                f() if isinstance(f, functools.partial) and f.func is not _smooth else f
                for f in functions
            )
        )
        for parameter in module.parameters():
            parameter.data.uniform_(0.2, 1.0)
        images = torch.randn(shape[0] + 1, *shape[1:])
    module.eval()
    graph, params = import_module(module, images[:1], check=False)
    assert graph.batched
    with torch.no_grad():
        expected = module(images)
    values = jax.jit(graph)(params, images.numpy())
    assert len(values) == len(expected) == len(functions)
    for number, (value, other) in enumerate(zip(values, expected)):
        assert value.shape == other.shape, number
        bound = tolerance * max(float(other.abs().max()), 1e-3)
        np.testing.assert_allclose(value, other.numpy(), rtol=0, atol=bound, err_msg=str(number))


def _smooth(x, **options):
    return F.interpolate(x, antialias=True, **options)


conv = functools.partial(functools.partial, nn.Conv2d)
transposed = functools.partial(functools.partial, nn.ConvTranspose2d)

FAMILIES = {
    "convolution": [
        conv(4, 6, 3),
        conv(4, 6, (3, 5), stride=2, padding=(1, 2)),
        conv(4, 8, 3, padding=2, dilation=2, groups=2, bias=False),
        conv(4, 8, (4, 2), padding="same"),
        conv(4, 4, 3, padding=1, groups=4, padding_mode="reflect"),
        conv(4, 4, 3, padding=1, padding_mode="circular"),
        lambda x: F.conv1d(x.mean(3), torch.ones(2, 4, 3), padding=1, stride=2),
    ],
    "transposed convolution": [
        transposed(4, 6, 3),
        transposed(4, 6, (3, 4), stride=2, padding=1, output_padding=(1, 0)),
        transposed(4, 8, 3, stride=3, groups=2, dilation=2, bias=False),
        transposed(4, 4, 2, stride=(2, 1), groups=4),
    ],
    "max pool": [
        lambda x: F.max_pool2d(x, 2),
        lambda x: F.max_pool2d(x - 9, 3, 2, 1),
        lambda x: F.max_pool2d(x, (3, 2), (2, 3), (1, 0), ceil_mode=True),
        lambda x: F.max_pool2d(x, 2, 3, 1, ceil_mode=True),
        lambda x: F.max_pool2d(x, 3, 2, 1, dilation=2, ceil_mode=True),
        lambda x: F.max_pool1d(x.mean(3), 3, 2),
    ],
    "average pool": [
        lambda x: F.avg_pool2d(x, 2),
        lambda x: F.avg_pool2d(x, 3, 2, 1),
        lambda x: F.avg_pool2d(x, 3, 2, 1, count_include_pad=False),
        lambda x: F.avg_pool2d(x, 3, 2, 1, ceil_mode=True),
        lambda x: F.avg_pool2d(x, (2, 4), (3, 2), (1, 2), ceil_mode=True, count_include_pad=True),
        lambda x: F.avg_pool2d(x, 2, 2, ceil_mode=True, count_include_pad=False),
        lambda x: F.avg_pool2d(x, 3, 2, 1, divisor_override=5),
        lambda x: F.avg_pool1d(x.mean(3), 3, 2, 1),
    ],
    "adaptive pool": [
        lambda x: F.adaptive_avg_pool2d(x, 1),
        lambda x: F.adaptive_avg_pool2d(x, (3, 5)),
        lambda x: F.adaptive_avg_pool2d(x, (11, 1)),
        lambda x: F.adaptive_avg_pool2d(x[..., :10, :12], (5, 3)),
        lambda x: F.adaptive_avg_pool2d(x[..., :2, :3], 7),
        lambda x: F.adaptive_avg_pool2d(x, (None, 2)),
        lambda x: F.adaptive_max_pool2d(x, (2, 3)),
        lambda x: F.adaptive_max_pool2d(x, 1),
        lambda x: F.adaptive_avg_pool1d(x.mean(3), 4),
    ],
    "padding": [
        lambda x: F.pad(x, (1, 2, 0, 3)),
        lambda x: F.pad(x, (2, 0, -1, 3, 1, 0), value=1.5),
        lambda x: F.pad(x, (3, 1, 2, 0), mode="reflect"),
        lambda x: F.pad(x, (3, 0, 2, 4), mode="replicate"),
        lambda x: F.pad(x, (3, 1, 2, 0), mode="circular"),
        nn.ReflectionPad2d((1, 2, 3, 4)),
        nn.ReplicationPad2d((1, 2, 0, 4)),
        nn.ZeroPad2d((0, 1, 0, 1)),
    ],
    "nearest": [
        lambda x: F.interpolate(x, scale_factor=2),
        lambda x: F.interpolate(x, (7, 30)),
        lambda x: F.interpolate(x, scale_factor=(0.6, 1.7)),
        lambda x: F.interpolate(x, (7, 30), mode="nearest-exact"),
        nn.Upsample(scale_factor=3),
    ],
    "linear and cubic resizing": [
        lambda x: F.interpolate(x, scale_factor=2, mode="bilinear"),
        lambda x: F.interpolate(x, (5, 29), mode="bilinear"),
        lambda x: F.interpolate(x, (5, 29), mode="bilinear", align_corners=True),
        lambda x: F.interpolate(x, (11, 1), mode="bilinear", align_corners=True),
        lambda x: F.interpolate(x, scale_factor=1.7, mode="bilinear"),
        lambda x: F.interpolate(x, (5, 29), mode="bicubic"),
        lambda x: F.interpolate(x, (5, 29), mode="bicubic", align_corners=True),
        lambda x: F.interpolate(x.mean(3), 17, mode="linear"),
        *(
            functools.partial(_smooth, mode=mode, **options)
            for mode in ("bilinear", "bicubic")
            for options in (
                *({"size": (5, 29)}, {"size": (3, 7)}, {"scale_factor": 0.45}),
                {"size": (4, 5), "align_corners": True},
            )
        ),
    ],
    "activations": [
        *(nn.ReLU(), nn.ReLU6(), nn.GELU(), nn.GELU("tanh"), nn.SiLU(), nn.Mish(), nn.ELU(0.7)),
        *(nn.Hardswish(), nn.Hardsigmoid(), nn.Hardtanh(-0.5, 0.7), nn.LeakyReLU(0.2), nn.SELU()),
        *(nn.CELU(0.5), nn.PReLU(), nn.PReLU(4), nn.Softplus(2.0), nn.Sigmoid(), nn.Tanh()),
        *(nn.LogSigmoid(), nn.Softmax(1), nn.LogSoftmax(-1), nn.GLU(1), nn.Softsign()),
        *(nn.Threshold(0.1, 0.3), nn.Tanhshrink(), nn.Dropout(0.5), nn.Identity()),
    ],
    "normalisation": [
        functools.partial(nn.BatchNorm2d, 4),
        functools.partial(nn.BatchNorm2d, 4, affine=False, eps=0.1),
        functools.partial(nn.GroupNorm, 2, 4),
        functools.partial(nn.GroupNorm, 1, 4, affine=False),
        functools.partial(nn.LayerNorm, 13),
        functools.partial(nn.LayerNorm, (4, 11, 13), elementwise_affine=False),
        functools.partial(nn.InstanceNorm2d, 4, affine=True),
        functools.partial(nn.InstanceNorm2d, 4, track_running_stats=True),
        functools.partial(nn.RMSNorm, (11, 13)),
        functools.partial(nn.LocalResponseNorm, 3),
        lambda x: F.normalize(x, dim=1),
        lambda x: F.batch_norm(x.mean((2, 3)), torch.ones(4), torch.ones(4) * 2),
    ],
    "products": [
        functools.partial(nn.Linear, 13, 5),
        functools.partial(nn.Linear, 13, 5, bias=False),
        lambda x: x @ x.transpose(2, 3),
        lambda x: x @ torch.ones(13, 3),
        lambda x: torch.ones(3, 11) @ x,
        lambda x: x @ torch.ones(13),
        lambda x: torch.bmm(x.mean(1), x.mean(1).transpose(1, 2)),
        lambda x: torch.addmm(torch.ones(3), x.mean((1, 2)), torch.ones(13, 3), beta=2, alpha=0.5),
        lambda x: torch.einsum("nchw,ndhw->ncd", x, x),
        lambda x: torch.baddbmm(torch.ones(1), x.mean(1), x.mean(1).transpose(1, 2)),
        lambda x: x.mean((2, 3)).mm(torch.ones(4, 2)),
    ],
    "attention": [
        lambda x: F.scaled_dot_product_attention(x, x + 1, 2 * x),
        lambda x: F.scaled_dot_product_attention(x, x[:, :, :5], x[:, :, :5], scale=0.3),
        lambda x: F.scaled_dot_product_attention(x, x, x, is_causal=True),
        lambda x: F.scaled_dot_product_attention(x, x, x, torch.ones(11, 11).tril().bool()),
        lambda x: F.scaled_dot_product_attention(x, x, x, torch.ones(11, 11).tril()),
        lambda x: F.scaled_dot_product_attention(x, x[:, :2], x[:, :2], enable_gqa=True),
    ],
    "shapes": [
        *(nn.Flatten(), nn.Flatten(2), nn.Unflatten(1, (2, 2)), nn.PixelShuffle(2)),
        *(nn.ChannelShuffle(2), lambda x: nn.PixelUnshuffle(2)(x[..., :10, :12])),
        lambda x: x.reshape(x.shape[0], 2, -1).permute(2, 0, 1).transpose(0, 1),
        lambda x: x.unsqueeze(-1).squeeze().unsqueeze(2).squeeze(2),
        lambda x: x.mean((2, 3), keepdim=True).expand(-1, -1, 3, 5).contiguous(),
        lambda x: x[0, 0, 0].expand(x.shape[0], 13).T,
        lambda x: x.repeat(1, 2, 1, 3) + x.repeat(2, 1, 1, 1, 1)[0, 0, 0, 0, 0],
        lambda x: torch.cat([x, 2 * x, x[:, :1]], 1),
        lambda x: torch.stack([x, 2 * x], -1),
        lambda x: torch.roll(x, (2, -3), (2, 3)) + torch.roll(x, 40),
        lambda x: torch.roll(x, 5, -1).flip(2, 3),
        lambda x: x.movedim(1, -1).swapaxes(1, 2),
    ],
    "parts": [
        lambda x: torch.cat(x.chunk(3, 1)[::-1], 1),
        lambda x: torch.cat(x.split(4, 2)[::-1], 2),
        lambda x: torch.cat(x.split([1, 3], 1)[::-1], 1),
        lambda x: sum(x.unbind(1)),
        lambda x: x[:, 1:, ::2, -3:] + x[:, :-1, ::2, :3],
        lambda x: x[:, -1] + x.select(1, 0) + x.narrow(1, 1, 2).sum(1),
        lambda x: x[..., None, 3],
        lambda x: x.unfold(3, 3, 2),
        lambda x: x[:, [2, 0, 0]] + x.index_select(1, torch.tensor([1, 1, 3])),
        lambda x: x[:, :, torch.tensor([[0, 3], [5, 1]])],
        lambda x: torch.gather(x, 1, torch.ones(1, 2, 3, 4, dtype=torch.int64)),
        lambda x: F.embedding(torch.tensor([[2, 0]]), torch.ones(3, 2).cumsum(0)) * x[:1, 0, 0, :2],
        lambda x: F.unfold(x, 3, padding=1, stride=2),
    ],
    "assignment": [
        lambda x: _assigned(x, (slice(None), slice(1, 3)), 2.0),
        lambda x: _assigned(x, (slice(None), 1), 3.0),
        lambda x: _assigned(x, (slice(None), slice(None), torch.tensor([0, 4])), 3.0),
        lambda x: x.masked_fill(x > 0.3, -1.0),
    ],
    "arithmetic": [
        lambda x: (x + 1) * 2 - x / 3 + torch.rsub(x, 2, alpha=3),
        lambda x: torch.add(x, x, alpha=2) - torch.sub(x, x[0, 0], alpha=0.5),
        lambda x: x * torch.arange(13) + torch.tensor(3) + torch.tensor(2.5, dtype=torch.float64),
        lambda x: x**2 + x**3 + x.abs() ** 0.5 + (x.abs() + 1) ** -0.5 + (x.abs() + 1) ** 1.7,
        lambda x: 2.0**x + (x.abs() + 0.1) ** x,
        lambda x: x.clamp(-0.5, 0.5) + x.clamp(min=0) + x.clamp(max=0.2) + x.clip(x - 1, x + 1),
        lambda x: torch.where(x > 0, x, 0.5) + torch.where(x.abs() < 1, x, x.square()),
        lambda x: torch.minimum(x, x[0, 0]) + torch.maximum(x, x * 2) + torch.fmod(x, 0.7),
        lambda x: torch.div(x, 0.3, rounding_mode="floor") + torch.remainder(x, 0.7),
        lambda x: torch.div(x, 0.3, rounding_mode="trunc") + x // 0.4,
        lambda x: ((x > 0) & (x < 1) | ~(x == 0)).float() + (x >= 0).int() + (x != x).to(x.dtype),
        lambda x: torch.lerp(x, x + 1, 0.3) + torch.addcmul(x, x, x, value=0.1),
        lambda x: torch.logical_and(x > 0, x < 1).to(torch.float32) * 2,
    ],
    "functions": [
        lambda x: x.exp() + x.abs().log1p() + x.expm1() + (x.abs() + 1).log2() + x.exp2(),
        lambda x: (x.abs() + 1).log() + (x.abs() + 1).sqrt() + (x.abs() + 1).rsqrt() - x.neg(),
        lambda x: x.sin() + x.cos() + x.tanh() + x.erf() + x.sign() + (x.abs() + 1).reciprocal(),
        lambda x: x.floor() + x.ceil() + x.round() + x.trunc() + x.atan() + x.sinh() + x.sigmoid(),
        lambda x: torch.atan2(x, x + 3) + (x.abs() + 1).log10() + x.isnan().float(),
    ],
    "reductions": [
        lambda x: x.mean((2, 3)) + x.mean() + x.mean(-1).mean(-1),
        lambda x: x.sum(1, keepdim=True) + x.sum() + (x > 0).sum(1, keepdim=True),
        lambda x: x.amax((2, 3)) - x.amin((2, 3)) + x.max() + x.min(),
        lambda x: x.max(1)[0] + x.max(1).indices + x.min(2, keepdim=True).values[:, 0],
        lambda x: x.argmax(1).float() + x.min(1).indices,
        lambda x: x.var((2, 3)) + x.std((2, 3)) + x.var((2, 3), unbiased=False),
        lambda x: torch.var_mean(x, 1)[1] + torch.var_mean(x, 1, correction=0)[0],
        lambda x: x.norm(dim=1) + x.norm(p=1, dim=1) + x.norm(p=3, dim=1) + x.norm(p=float("inf")),
        lambda x: torch.logsumexp(x, (2, 3)) + x[:, :, :2, 0].prod(2),
        lambda x: x.cumsum(1) + (x > 2).any(1, keepdim=True).float(),
    ],
    "creation": [
        lambda x: x + torch.zeros(x.shape[0], 1, 1, 1) + torch.ones_like(x),
        lambda x: x + torch.full((13,), 2.0),
        lambda x: x * torch.arange(x.shape[0]).view(-1, 1, 1, 1),
        lambda x: x.new_ones(x.shape[0], 2) + x.new_zeros(2) + x.new_full((2,), 3.0),
        lambda x: torch.cat([torch.ones(1, 1, 11, 13).expand(x.shape[0], -1, -1, -1), x], 1),
        lambda x: x + torch.linspace(0, 1, 13) + torch.eye(13)[0],
        lambda x: x + torch.stack(torch.meshgrid(torch.arange(11), torch.arange(13))).sum(0),
        lambda x: x + x.shape[0] * 0.5,
    ],
}  # fmt: skip


def _assigned(x, where, value):
    x = x.clone()
    x[where] = value
    return x


@pytest.mark.parametrize("family", FAMILIES)
def test_operations_agree_with_torch(family):
    assert_agree(FAMILIES[family])


@pytest.mark.parametrize("size", [3, 5, 7, 9])  # and one more, in width
def test_pools_that_round_up_agree_at_every_size(size):
    windows = [(k, s, p) for k in (2, 3) for s in (1, 2, 3) for p in (0, 1) if k + 2 * p <= size]
    functions = [
        functools.partial(pool, kernel_size=k, stride=s, padding=p, ceil_mode=True)
        for pool in (nn.MaxPool2d, nn.AvgPool2d)
        for k, s, p in windows
    ]
    assert_agree(functions, (1, 2, size, size + 1))


def test_gradients_are_those_of_torch_even_where_functions_have_corners():
    module = Several(nn.ReLU(), nn.ReLU6(), nn.Softplus(), nn.Hardswish(), nn.LeakyReLU(), nn.ELU())
    graph, params = import_module(module.eval(), [1, 1, 1, 5])
    points = np.array([-100.0, -3.0, 0.0, 6.0, 100.0], np.float32).reshape(1, 1, 1, 5)
    images = torch.from_numpy(points).requires_grad_()
    sum(value.sum() for value in module(images) if value is not images).backward()
    gradient = jax.grad(lambda x: sum(value.sum() for value in graph(params, x)))(points)
    np.testing.assert_allclose(gradient, images.grad, atol=1e-6)


def primitives(jaxpr):
    for equation in jaxpr.eqns:
        yield equation.primitive.name
        for value in equation.params.values():
            if hasattr(value, "eqns") or hasattr(value, "jaxpr"):
                yield from primitives(getattr(value, "jaxpr", value))


@pytest.mark.parametrize(
    ("module", "names"),
    [
        (nn.Conv2d(3, 4, 3, 2, 1, bias=False), {"conv_general_dilated"}),
        (
            nn.ConvTranspose2d(3, 4, 3, 2, bias=False),
            {"rev", "reshape", "transpose", "conv_general_dilated"},
        ),
        (nn.MaxPool2d(3, 2, 1, ceil_mode=True), {"reduce_window_max"}),
        (nn.AvgPool2d(3, 2), {"reduce_window_sum", "div"}),
        (nn.AdaptiveAvgPool2d(1), {"reduce_sum", "broadcast_in_dim", "div"}),
        (nn.Linear(8, 4), {"dot_general", "broadcast_in_dim", "add"}),
        (nn.BatchNorm2d(3), {"broadcast_in_dim", "sub", "mul", "add", "rsqrt"}),
        (nn.UpsamplingBilinear2d(scale_factor=2), {"dot_general"}),
        (nn.UpsamplingNearest2d(scale_factor=2), {"gather"}),
        (nn.ZeroPad2d(1), {"pad"}),
        (nn.ReLU6(), {"clamp"}),
        (nn.GELU(), {"mul", "erf", "add"}),
    ],
    ids=lambda x: type(x).__name__ if isinstance(x, nn.Module) else "",
)
def test_operations_are_plain_primitives(module, names):
    graph, params = import_module(module.eval(), [1, 3, 8, 8])
    jaxpr = jax.make_jaxpr(graph)(params, jnp.zeros((2, 3, 8, 8)))
    assert set(primitives(jaxpr.jaxpr)) == names


class Transformed(nn.Module):
    def forward(self, x):
        return torch.fft.fft2(x).real


def test_an_operation_without_a_function_is_an_error_that_says_where_and_what_to_do():
    module = nn.Sequential(nn.ReLU(), nn.Sequential(Transformed()))
    with pytest.raises(UnsupportedOperationError, match=r"register_op\(") as error:
        import_module(module.eval(), [1, 3, 8, 8])
    assert error.value.operation == "aten._fft_c2c.default"
    assert error.value.path == "1.0"
    assert "aten._fft_c2c.default, in module '1.0', has no JAX function" in str(error.value)


def test_operations_join_by_name(monkeypatch):
    monkeypatch.setattr(table, "_TABLE", dict(table._TABLE))

    class Special(nn.Module):
        def forward(self, x):
            return torch.special.i0(x)

    with pytest.raises(UnsupportedOperationError, match=r"aten\.i0\.default"):
        import_module(Special().eval(), [1, 3, 8, 8])
    register_op("aten.i0.default", jax.scipy.special.i0)
    graph, params = import_module(Special().eval(), [1, 3, 8, 8])
    assert params == {}
    assert graph(params, jnp.zeros((2, 3, 8, 8))).shape == (2, 3, 8, 8)


def test_registering_is_checked():
    with pytest.raises(ValueError, match=r"must end in an overload: 'aten\.i0\.default'"):
        register_op("aten.i0", jnp.sin)
    with pytest.raises(TypeError, match="function is a int; must be callable"):
        register_op("aten.i0.default", 3)  # pyright: ignore


def test_indices_of_maxima_are_refused_when_used():
    pool = nn.MaxPool2d(2, return_indices=True)
    graph, params = import_module(pool.eval(), [1, 3, 8, 8], check=False)
    with pytest.raises(UnsupportedOperationError, match="gives indices"):
        graph(params, jnp.zeros((2, 3, 8, 8)))


def test_names_of_operations_exist_in_torch():
    for name in supported():
        kind, _, rest = name.partition(".")
        if kind == "aten":
            operation, overload = rest.split(".")
            assert overload in getattr(torch.ops.aten, operation).overloads(), name

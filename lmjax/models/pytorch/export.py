"""Importing PyTorch modules: `torch.export`, then the graph translated into NumPy and Python.

torchax would run the same graphs, but its releases follow torch's at a distance: 0.0.13, the newest
when this was written, does not import beside torch 2.13.
"""

import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from lmjax.models.pytorch.graph import Ref, Step, TorchGraph, mapped
from lmjax.models.pytorch.ops import find

if TYPE_CHECKING:
    import torch

Params = dict[str, jax.Array]

# Operations that are kept whole, although core ATen has simpler ones for them: taken apart, they
# merge axes, gather by computed indices or lose what other transformations could see.
_WHOLE = (
    *("adaptive_avg_pool2d.default", "channel_shuffle.default", "einsum.default"),
    *("group_norm.default", "hardsigmoid.default", "hardswish.default", "instance_norm.default"),
    *("layer_norm.default", "linear.default", "matmul.default", "max_pool2d.default"),
    *("mish.default", "pad.default", "pixel_shuffle.default", "pixel_unshuffle.default"),
    *("reflection_pad2d.default", "relu6.default", "replication_pad2d.default", "rms_norm.default"),
    *("roll.default", "scaled_dot_product_attention.default", "silu.default"),
    *("_upsample_bicubic2d_aa.vec", "_upsample_bilinear2d_aa.vec"),
    *("softplus.default", "upsample_bicubic2d.vec", "upsample_bilinear2d.vec"),
    *("upsample_linear1d.vec", "upsample_nearest2d.vec", "_upsample_nearest_exact2d.vec"),
)
# Arguments without a meaning in JAX.
_WITHOUT_MEANING = ("device", "layout", "pin_memory", "memory_format", "non_blocking", "implicit")
# Normalisations by statistics of a batch: fine for weights, never for images.
_OF_BATCH = (
    "aten._native_batch_norm_legit.no_stats",
    "aten._native_batch_norm_legit_functional.default",
)
_NARROWER = {"float64": "float32", "int64": "int32"}  # as JAX computes unless told otherwise


class ModuleImportError(ValueError):
    """A module that cannot be imported, and why."""


def import_module(
    module: "torch.nn.Module", example: Any, *, check: bool = True
) -> tuple[TorchGraph, Params]:
    """Returns a PyTorch module as a pure function of parameters and images, and its parameters.

    The module is exported unchanged by `torch.export`, and needed no more afterwards. The function
    takes any number of images of the example's size, `[N, C, H, W]`, and returns what the module
    returns. Compile it with `jax.jit`; its operations carry their modules' paths as named scopes.

    Args:
      module: in evaluation mode, with float32 parameters.
      example: images as the module takes them, a tensor or array `[N, C, H, W]`; or their shape.
      check: whether to compare the function on a batch with the module on its single images, by
        1e-4 of the largest output. The images are the example's first one, or noise for a shape.

    Returns:
      The function `(params, images) -> output`, and the parameters: keys of the state dict ->
      float32 arrays, of parameters, buffers and constants that are floating point and used.
      Integers and truth values, such as relative positions, are constants of the function.

    Raises:
      ModuleImportError: torch cannot export the module, a part of it is in training mode or not in
        float32, it mixes images of a batch, or the outputs differ.
      UnsupportedOperationError: an operation of the module has no function here.
      ImportError: torch is not installed.
    """
    torch = _torch()
    images = _example(torch, example)
    _check_module(torch, module)
    graph, params = _translated(torch, module, images)
    if check:
        _check_output(torch, module, graph, params, images)
    return graph, params


def _torch():
    try:
        import torch
    except ImportError as error:
        raise ImportError(
            'importing a PyTorch module needs torch: pip install "lmjax[torch]"'
        ) from error
    return torch


def _example(torch, example: Any) -> "torch.Tensor":
    """Returns the example as a tensor: noise for a shape."""
    if isinstance(example, tuple | list) and all(isinstance(size, int) for size in example):
        generator = torch.Generator().manual_seed(0)
        return _images_or_error(torch.empty(*example)).normal_(generator=generator)
    return _images_or_error(torch.as_tensor(example).detach())


def _images_or_error(images: "torch.Tensor") -> "torch.Tensor":
    if images.ndim != 4 or not images.is_floating_point() or 0 in images.shape:
        raise ValueError(
            f"example is {images.dtype} of shape {list(images.shape)}; must be a float tensor of "
            "images [N, C, H, W], or their shape, such as [1, 3, 224, 224]"
        )
    return images


def _check_module(torch, module: "torch.nn.Module") -> None:
    if not isinstance(module, torch.nn.Module):
        raise TypeError(f"module is a {type(module).__name__}; must be a torch.nn.Module")
    training = [name or "the module itself" for name, m in module.named_modules() if m.training]
    if training:
        raise ModuleImportError(
            f"{type(module).__name__} is in training mode ({', '.join(training[:3])}), where "
            "images of a batch change each other's outputs: call module.eval() first"
        )
    for name, value in module.state_dict().items():
        single = value.dtype == torch.float32 or not value.is_floating_point()
        if not single or value.device.type != "cpu":
            raise ModuleImportError(
                f"{name} is {value.dtype} on {value.device}; must be torch.float32 on the CPU: "
                "call module.float().cpu() first"
            )


def _translated(torch, module, images) -> tuple[TorchGraph, Params]:
    """Returns graph and parameters, for any number of images where torch can export that."""
    # Warnings are about torch's own workings.
    with warnings.catch_warnings(action="ignore"), torch.no_grad():
        try:
            program = _exported(torch, module, images, many=True)
        except _NotExportedError:
            _check_runs(module, images[:1])
            program = _exported(torch, module, images, many=False)
        return _Translation(torch, program).result()


class _NotExportedError(ModuleImportError):
    """What torch cannot export."""


def _check_runs(module, images) -> None:
    """Runs the module on an image: an error then is no matter of exporting."""
    try:
        module(images)
    except Exception as error:  # the module's own, of any type
        raise ModuleImportError(
            f"{type(module).__name__} fails in torch on an example of shape {list(images.shape)}: "
            f"{_first_line(error)}. Give an example of a shape that it takes"
        ) from error


def _exported(torch, module, images, *, many: bool) -> "torch.export.ExportedProgram":
    """Returns the program of the module, for any number of images or for one."""
    example = images[:1].repeat(2 if many else 1, 1, 1, 1)
    sizes = ({0: torch.export.Dim("images", min=1)},) if many else None
    try:
        program = torch.export.export(module, (example,), dynamic_shapes=sizes, strict=False)
        return program.run_decompositions(_decompositions(torch))
    except Exception as error:  # torch raises a dozen types here
        raise _NotExportedError(
            f"torch.export cannot export {type(module).__name__}: {_first_line(error)}. A module "
            "must compute the same operations for all images: no `if` or loop that depends on "
            "their values, and no NumPy"
        ) from error


def _first_line(error: Exception) -> str:
    lines = (line.strip() for line in str(error).splitlines())
    return next((line.rstrip(".") for line in lines if line), type(error).__name__)


def _decompositions(torch) -> Any:
    """Returns torch's table of core ATen, without the operations that are kept whole."""
    table = torch.export.default_decompositions()
    for name in _WHOLE:
        operation, overload = name.split(".")
        packet = getattr(torch.ops.aten, operation, None)
        if packet is not None and overload in packet.overloads():
            table.pop(getattr(packet, overload), None)
    return table


class _Translation:
    """The translation of one exported program."""

    def __init__(self, torch, program: "torch.export.ExportedProgram"):
        self.torch = torch
        self.program = program
        self.inputs = {spec.arg.name: spec for spec in program.graph_signature.input_specs}
        self.constants: dict[Any, Any] = {}  # nodes -> tensors, or what holds them
        self.params: dict[str, str] = {}
        self.arrays: Params = {}
        self.images = ""
        self.of_images: set[Any] = set()  # nodes that depend on the images
        self.steps: list[Step] = []

    def result(self) -> tuple[TorchGraph, Params]:
        """Returns the graph and its parameters."""
        output: Any = None
        for node in self.program.graph.nodes:
            if node.op == "placeholder":
                self._input(node)
            elif node.op == "call_function":
                self._call(node)
            elif node.op == "output":
                output = self._outputs(node)
        return self._graph(output), self.arrays

    def _graph(self, output: Any) -> TorchGraph:
        images = next(n for n in self.program.graph.nodes if n.name == self.images)
        count, *shape = images.meta["val"].shape
        steps = tuple(self._used(output))
        for step in steps:
            find(step.operation, step.path)  # an error here, not when it runs
        return TorchGraph(
            module=self._module_name(),
            shape=tuple(map(int, shape)),
            params=self.params,
            images=self.images,
            steps=steps,
            output=output,
            batched=not isinstance(count, int),
        )

    def _module_name(self) -> str:
        for node in self.program.graph.nodes:
            for path, kind in node.meta.get("nn_module_stack", {}).values():
                if path == "":
                    return str(getattr(kind, "__name__", kind)).rpartition(".")[2]
        return "module"

    def _input(self, node) -> None:
        """Notes a parameter, a constant or the images."""
        spec = self.inputs[node.name]
        if spec.target is None:
            self.images = node.name
            self.of_images.add(node)
        elif node.users:
            self._weight(node, spec.target)

    def _weight(self, node, key: str) -> None:
        value = self._tensor(key)
        if not value.is_floating_point():
            self.constants[node] = value
            return
        self.params[node.name] = key
        if key not in self.arrays:
            self.arrays[key] = jax.numpy.asarray(self._array(value))

    def _tensor(self, key: str) -> "torch.Tensor":
        state, constants = self.program.state_dict, self.program.constants
        value: Any = state[key] if key in state else constants[key]
        return value.detach()

    def _call(self, node) -> None:
        """Computes what is constant, and notes a step for everything else."""
        if self._is_constant(node):
            arguments = (node.args, node.kwargs)
            args, kwargs = self.torch.fx.node.map_arg(arguments, self.constants.__getitem__)
            self.constants[node] = node.target(*args, **kwargs)
            return
        if self.of_images.intersection(node.all_input_nodes):
            self.of_images.add(node)
        self.steps.append(self._step(node))

    def _is_constant(self, node) -> bool:
        """Whether a call reads constants alone, and gives the same each time."""
        tags = getattr(node.target, "tags", ())
        if self.torch.Tag.nondeterministic_seeded in tags:
            return False
        return all(each in self.constants for each in node.all_input_nodes)

    def _step(self, node) -> Step:
        name, path = _operation(node.target), _module_path(node)
        if name in _OF_BATCH and node in self.of_images:
            raise ModuleImportError(
                f"{name} in module {path!r} normalises images by statistics of their batch, so "
                "images change each other's outputs: give it running statistics, or use a norm of "
                "each image by itself"
            )
        args, kwargs = self._referring((node.args, node.kwargs))
        kwargs = {key: v for key, v in kwargs.items() if key not in _WITHOUT_MEANING}
        return Step(node.name, name, args, kwargs, path)

    def _referring(self, tree: Any) -> Any:
        """Returns arguments with a reference for each node that is computed when the graph runs."""
        return mapped(self._argument, _unwrapped(tree))

    def _argument(self, value: Any) -> Any:
        if not isinstance(value, self.torch.fx.Node):
            return self._plain(value)
        known = value in self.constants
        return mapped(self._plain, self.constants[value]) if known else Ref(value.name)

    def _plain(self, value: Any) -> Any:
        """Returns what torch has a type of its own for as NumPy's or Python's."""
        if isinstance(value, self.torch.Tensor):
            return self._array(value)
        if isinstance(value, self.torch.dtype):
            return _dtype(value)
        return value

    def _array(self, tensor: "torch.Tensor") -> np.ndarray:
        tensor = tensor.detach().cpu()
        if tensor.dtype == self.torch.bfloat16:
            tensor = tensor.float()
        return np.array(tensor.numpy(), _dtype(tensor.dtype))

    def _outputs(self, node) -> Any:
        """Returns what the module returns, in the module's own structure."""
        leaves = self._referring(list(node.args[0]))
        kinds = self.program.graph_signature.output_specs
        leaves = [leaf for leaf, spec in zip(leaves, kinds) if spec.kind.name == "USER_OUTPUT"]
        spec = self.program.call_spec.out_spec
        return _unwrapped(self.torch.utils._pytree.tree_unflatten(leaves, spec))

    def _used(self, output: Any) -> list[Step]:
        """Returns the steps that the output depends on."""
        needed: set[str] = set()
        mapped(lambda leaf: needed.add(leaf.name) if isinstance(leaf, Ref) else None, output)
        used = []
        for step in reversed(self.steps):
            if step.name in needed:
                used.append(step)
                tree = (step.args, step.kwargs)
                mapped(lambda v: needed.add(v.name) if isinstance(v, Ref) else None, tree)
        return used[::-1]


def _unwrapped(tree: Any) -> Any:
    """Returns a structure in Python's own tuples, lists and dicts."""
    if isinstance(tree, Mapping):
        return {key: _unwrapped(value) for key, value in tree.items()}
    if hasattr(tree, "_fields"):
        return type(tree)(*map(_unwrapped, tree))
    if isinstance(tree, tuple | list):
        return (tuple if isinstance(tree, tuple) else list)(map(_unwrapped, tree))
    return tree


def _operation(target: Any) -> str:
    """Returns a call's name in the table: `aten.add.Tensor`, `operator.mul`, `torch.sym_max`."""
    if hasattr(target, "overloadpacket"):
        return str(target)
    name = getattr(target, "__name__", str(target))
    part = getattr(target, "__module__", "").lstrip("_").partition(".")[0]
    return f"{part}.{name}"


def _module_path(node) -> str:
    """Returns the dotted path of the module that calls it, `layer1.0.conv1`."""
    stack = list(node.meta.get("nn_module_stack", {}).values())
    path = stack[-1][0] if stack else ""
    return "" if path.startswith("_empty_nn_module_stack") else path


def _dtype(dtype: Any) -> np.dtype:
    name = str(dtype).removeprefix("torch.")
    return np.dtype(jax.numpy.dtype(_NARROWER.get(name, name)))


def _check_output(torch, module, graph: TorchGraph, params: Params, images) -> None:
    """Compares the function on a batch with the module on each image alone.

    The batch has two images: the example and its mirror image.
    """
    images = torch.cat([images[:1], images[:1].flip(-1)])
    with torch.no_grad():
        alone = [jax.tree.leaves(_arrays(torch, module(image[None]))) for image in images]
    values = jax.tree.leaves(jax.jit(graph)(params, images.numpy()))
    for value, *parts in zip(values, *alone, strict=True):
        _check_value(graph.module, np.asarray(value), parts)


def _check_value(module: str, value: np.ndarray, parts: list[np.ndarray]) -> None:
    """Compares one output for a batch with those for each of its images."""
    if np.ndim(parts[0]) == 0 or len(parts[0]) != 1:
        raise ModuleImportError(
            f"{module} returns an array of shape {list(np.shape(parts[0]))} for one image; must "
            "return arrays [N, ...] for N images"
        )
    other = np.concatenate(parts)
    same = value.shape == other.shape
    difference = np.abs(value - other.astype(np.float64)).max(initial=0) if same else np.inf
    if not difference <= 1e-4 * np.abs(other).max(initial=0):
        raise ModuleImportError(
            f"{module} as imported differs from the module in torch on single images, by "
            f"{difference:.3g} where the largest output is {np.abs(other).max():.3g}: either its "
            "images change each other's outputs in a batch, or the import is wrong; check=False "
            "imports it nevertheless"
        )


def _arrays(torch, output: Any) -> Any:
    return mapped(
        lambda leaf: leaf.numpy() if isinstance(leaf, torch.Tensor) else leaf, _unwrapped(output)
    )

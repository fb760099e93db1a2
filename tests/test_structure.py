"""The plan of the house, checked from the source: who imports whom, and what the API looks like."""

import ast
import dataclasses
import functools
import importlib
import inspect
import re
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

import lmjax
from tests.support.small_classifier import small_classifier

PACKAGE = Path(lmjax.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))

# What each package may import from lmjax besides itself and `_utils`.
MAY_IMPORT = {
    "_utils": set(),
    "masking": set(),
    "removals": {"masking"},
    "models": {"masking", "removals", "__version__"},
    "masks": {"masking"},
    "evaluation": {"masking", "removals", "masks"},
    "attribution": {"masking", "removals", "masks", "evaluation", "plots", "__version__"},
    "metrics": {"masking", "masks", "evaluation", "attribution", "plots"},
    "data": {"models", "metrics"},
    "training": {"masking", "removals", "models", "data", "__version__"},
    "studies": {
        *("masking", "removals", "models", "masks", "evaluation", "attribution", "metrics", "data"),
        *("plots", "__version__"),
    },
    "plots": set(),
    "explanation": {
        *("masking", "removals", "models", "masks", "evaluation", "attribution", "metrics", "data"),
        *("plots", "__version__"),
    },
    "cli": {"evaluation", "models", "data", "training", "studies", "explanation"},
}
ONLY_IN = {
    "torch": {"models/checkpoints.py", "models/external.py", "models/pytorch/export.py"},
    "matplotlib": {
        *("plots/charts.py", "plots/colours.py", "plots/dots.py", "plots/explanations.py"),
        *("plots/figures.py", "plots/matrices.py", "plots/pictures.py", "plots/series.py"),
    },
    "tensorflow_datasets": {
        *("data/cutouts/builder.py", "data/digits/builder.py", "data/imagenet/builders.py"),
        *("data/tfds/building.py", "data/tfds/source.py"),
    },
}
HEAVY = {"torch", "skimage", "sklearn", "psutil", "scipy", "nltk"}  # imported inside functions only
PUBLIC = [
    *("attribution", "data", "evaluation", "masking", "masks", "metrics", "models", "removals"),
    *("studies", "training"),
]


def name_of(path):
    return path.relative_to(PACKAGE).as_posix()


@functools.cache
def parsed(path):
    return ast.parse(path.read_text())


def nodes_within(tree, wanted):
    """Identities of all nodes inside those that `wanted` accepts."""
    return {id(inner) for node in ast.walk(tree) if wanted(node) for inner in ast.walk(node)}


def is_function(node):
    return isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)


def is_for_types(node):
    return isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"


def imports(tree):
    """(module, inside a function) of every import, but those of other packages' types."""
    inside, for_types = (nodes_within(tree, kind) for kind in (is_function, is_for_types))
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative import"
            modules = [node.module]
            if node.module == "lmjax":
                modules = [f"lmjax.{alias.name}" for alias in node.names]
        else:
            continue
        for module in modules:
            if id(node) not in for_types or module.split(".")[0] == "lmjax":
                yield module, id(node) in inside


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_imports_go_upwards(path):
    name = name_of(path)
    part = name.split("/")[0].removesuffix(".py")
    for module, inside in imports(parsed(path)):
        top, *rest = module.split(".")
        if top in ONLY_IN:
            assert name in ONLY_IN[top], f"{name} imports {module}"
        if top in HEAVY:
            assert inside, f"{name} imports {module} at its top"
        if module == "lmjax":
            assert part == "cli", f"{name} imports the package that it is a part of"
        elif top == "lmjax" and part in MAY_IMPORT:
            assert rest[0] in {part, "_utils", *MAY_IMPORT[part]}, f"{name} imports {module}"


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_nothing_runs_at_import(path):
    for statement in parsed(path).body:
        if isinstance(statement, ast.FunctionDef | ast.ClassDef):
            continue
        later = {
            id(n) for f in ast.walk(statement) if isinstance(f, ast.Lambda) for n in ast.walk(f)
        }
        calls = [
            ast.unparse(node.func)
            for node in ast.walk(statement)
            if isinstance(node, ast.Call) and id(node) not in later
        ]
        bad = [c for c in calls if c.startswith(("jax.", "jnp.", "jax.numpy", "torch."))]
        assert not bad, f"{name_of(path)} calls {bad} at import"


def test_importing_everything_starts_no_device_and_no_torch():
    modules = [
        "lmjax." + name_of(path).removesuffix(".py").replace("/", ".").removesuffix(".__init__")
        for path in FILES
        if name_of(path) != "__init__.py"
    ]
    code = (
        f"import importlib, sys\nfor m in {modules!r}: importlib.import_module(m)\n"
        "import jax\n"
        "from jax._src import xla_bridge\n"
        "assert not xla_bridge.backends_are_initialized()\n"
        "assert not {'torch', 'tensorflow'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def public_names():
    for part in PUBLIC:
        module = importlib.import_module(f"lmjax.{part}")
        for name in module.__all__:
            yield f"{part}.{name}", getattr(module, name)
    segments = lmjax.segments
    yield from (
        (f"segments.{name}", getattr(segments, name))
        for name in (
            *("grid", "slic", "slic_near", "quickshift", "felzenszwalb", "from_labels"),
            *("contours", "boxes", "merge", "from_masks", "from_coco"),
        )
    )


# Options that read better by their place, as in torch.export.
POSITIONAL = {"models.from_torch": ("example",)}
PUBLIC_NAMES = [pytest.param(*each, id=each[0]) for each in public_names()]


@pytest.mark.parametrize(("name", "value"), PUBLIC_NAMES)
def test_public_names_are_documented_and_options_keyword_only(name, value):
    if inspect.ismodule(value):
        return
    assert inspect.getdoc(value), f"{name} has no docstring"
    if not inspect.isfunction(value):
        return
    parameters = list(inspect.signature(value).parameters.values())
    if len(parameters) == 1:
        return
    for parameter in parameters:
        if parameter.default is inspect.Parameter.empty or parameter.name in POSITIONAL.get(
            name, ()
        ):
            continue
        assert parameter.kind is inspect.Parameter.KEYWORD_ONLY, f"{name}: {parameter.name}"
    options = [p.name for p in parameters if p.kind is inspect.Parameter.KEYWORD_ONLY]
    if "key" in options:
        assert options[0] == "key", f"{name}: key comes first among the options"
    for parameter in parameters:
        assert parameter.name in inspect.getdoc(value), f"{name}: {parameter.name}"


EXPLAINING = [
    pytest.param(value, id=name)
    for name, value in public_names()
    if name.split(".")[0] in ("attribution", "metrics")
    and inspect.isfunction(value)
    and "predictor" in inspect.signature(value).parameters
    and name != "attribution.fullgrad"  # which needs a network in layers
]


def arrays_of(result):
    """All arrays that an attribution or a metric returns."""
    return jax.tree.leaves(vars(result) if dataclasses.is_dataclass(result) else result)


@pytest.mark.parametrize("function", EXPLAINING)
def test_attributions_and_metrics_take_an_evaluator_in_the_place_of_its_options(function):
    parameters = inspect.signature(function).parameters
    assert not {"batch_size", "progress", "engine", "mesh"} & set(parameters)
    rng = np.random.default_rng(0)
    arguments = {
        "image": rng.random((16, 16, 3)).astype(np.float32),
        "segments": np.arange(256).reshape(16, 16) // 32,
        "heatmap": rng.random((16, 16)),
        "masks": np.eye(16, dtype=bool)[:, None].repeat(16, axis=1),
        "key": jax.random.key(0),
        "halves": (lambda image: image, lambda x: x.mean(axis=(0, 1))),
        **{"num_samples": 120, "num_designs": 4, "iterations": 3, "grid": 4},
    }
    given = {name: arguments[name] for name in arguments if name in parameters}
    predictor = lmjax.Predictor(small_classifier((16, 16, 3)), lmjax.Replace("black"))
    alone, held = (
        arrays_of(function(each, **given))
        for each in (predictor, lmjax.Evaluator(predictor, engine="dense"))
    )
    assert len(alone) == len(held) > 0
    for one, other in zip(alone, held):
        np.testing.assert_array_equal(one, other)
    with pytest.raises(ValueError, match="batch_size must be"):
        function(lmjax.Evaluator(predictor, batch_size=-1), **given)


def test_public_surface():
    assert set(lmjax.__all__) >= {
        *("Coalitions", "LayerMasking", "PartialConvolution", "Predictor", "Replace", "evaluate"),
        *("attribution", "data", "masking", "metrics", "models", "segments", "training"),
    }
    for name in lmjax.__all__:
        assert getattr(lmjax, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = lmjax.nothing


def test_names_are_what_they_say_on_first_use():
    code = (
        "import lmjax\n"
        "assert lmjax.attribution.__name__ == 'lmjax.attribution'\n"
        "assert lmjax.segments.__name__ == 'lmjax.masks.segments'\n"
        "assert lmjax.attribution.lime.__name__ == 'lime'\n"
        "assert callable(lmjax.evaluate)\n"
        "assert 'lime' in lmjax.attribution.methods.names()\n"
        "assert callable(lmjax.studies.measurements.measurements)\n"
        "assert callable(lmjax.masking.layers.conv)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_names_on_pages_need_no_other_import():
    """A module that something else has imported would be there by accident."""
    root = Path(__file__).parents[1]
    pages = [root / "README.md", *(root / "docs").rglob("*.md"), *(root / "notebooks").glob("*.py")]
    written = re.compile(r"\blmjax\.([a-z_]+)\.(\w+)(?!\w* -->)")
    for page in pages:
        for package, name in written.findall(page.read_text()):
            found = getattr(lmjax, package, None)
            if inspect.ismodule(found) and hasattr(found, "__path__"):
                assert name in found.__all__, f"{page}: lmjax.{package}.{name}"


@pytest.mark.parametrize(
    ("module", "name", "instead"),
    [
        (lmjax, "perturbation", "lmjax.masks and lmjax.evaluation"),
        (lmjax, "methods", "lmjax.attribution.methods"),
        (lmjax, "devices", "jax.sharding.Mesh"),
        (lmjax.masking, "Replace", "use lmjax.Replace"),
        (lmjax.studies, "summaries", "lmjax.studies.statistics"),
        (lmjax.Replace, "fill", "paint"),
    ],
    ids=lambda x: x if isinstance(x, str) else x.__name__,
)
def test_names_that_are_gone_say_what_replaced_them(module, name, instead):
    subject = module("grey") if module is lmjax.Replace else module
    with pytest.raises(AttributeError, match=f"{name} is gone.*{instead}"):
        getattr(subject, name)


def test_pillow_is_told_which_formats_to_open():
    for path in FILES:
        nodes = [*ast.walk(parsed(path))]
        opening = [
            node
            for node in nodes
            if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("Image.open")
        ]
        assert all(any(each.arg == "formats" for each in call.keywords) for call in opening), path

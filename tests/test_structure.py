"""The plan of the house, checked from the source: who imports whom, and what the API looks like."""

import ast
import importlib
import inspect
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

import lmjax

PACKAGE = Path(lmjax.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))

# What each part may import from lmjax besides itself.
MAY_IMPORT = {
    "masking": set(),
    "models": {"masking"},
    "perturbation": {"masking"},
    "attribution": {"masking", "perturbation"},
    "metrics": {"masking", "perturbation", "attribution"},
    "data": {"metrics"},
    "training": {"masking", "models", "data", "__version__"},
    "studies": {
        *("masking", "models", "perturbation", "attribution", "metrics", "data"),
        *("plots", "__version__"),
    },
    "plots": set(),
    "methods": {"masking", "attribution"},
    "picture": {"models", "data"},
    "judging": {"masking", "models", "perturbation", "attribution", "metrics"},
    "explanation": {
        *("masking", "models", "attribution", "metrics"),
        *("plots", "methods", "picture", "judging"),
    },
    "explain": {
        *("masking", "models", "perturbation"),
        *("methods", "picture", "judging", "explanation"),
    },
}
NO_IDEA_OF_THE_FIELD = {"atomic", "devices", "identity", "lazy"}
ONLY_IN = {
    "torch": {"models/checkpoints.py"},
    "matplotlib": {"plots.py"},
    "tensorflow_datasets": {
        *("data/building.py", "data/digit_scenes_builder.py", "data/imagenet_builders.py"),
        "data/tfds_source.py",
    },
}
HEAVY = {"torch", "skimage", "sklearn", "psutil", "scipy", "nltk"}  # imported inside functions only
PUBLIC = [
    *("attribution", "data", "masking", "metrics", "models", "perturbation", "studies"),
    "training",
]


def name_of(path):
    return path.relative_to(PACKAGE).as_posix()


def imports(tree):
    """(module, inside a function) of every import."""
    inside = {
        id(node)
        for function in ast.walk(tree)
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef)
        for node in ast.walk(function)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, id(node) in inside) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative import"
            if node.module == "lmjax":
                yield from ((f"lmjax.{alias.name}", id(node) in inside) for alias in node.names)
            else:
                yield node.module, id(node) in inside


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_imports_go_upwards(path):
    name = name_of(path)
    part = name.split("/")[0].removesuffix(".py")
    for module, inside in imports(ast.parse(path.read_text())):
        top, *rest = module.split(".")
        if top in ONLY_IN:
            assert name in ONLY_IN[top], f"{name} imports {module}"
        if top in HEAVY:
            assert inside, f"{name} imports {module} at its top"
        if top == "lmjax" and part in MAY_IMPORT:
            assert rest[0] in {part, *NO_IDEA_OF_THE_FIELD, *MAY_IMPORT[part]}, (
                f"{name} imports {module}"
            )


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_nothing_runs_at_import(path):
    for statement in ast.parse(path.read_text()).body:
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
            *("grid", "slic", "quickshift", "felzenszwalb", "from_labels"),
            *("contours", "boxes", "merge"),
        )
    )


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
        if parameter.default is not inspect.Parameter.empty:
            assert parameter.kind is inspect.Parameter.KEYWORD_ONLY, f"{name}: {parameter.name}"
    options = [p.name for p in parameters if p.kind is inspect.Parameter.KEYWORD_ONLY]
    if "key" in options:
        assert options[0] == "key", f"{name}: key comes first among the options"
    for parameter in parameters:
        assert parameter.name in inspect.getdoc(value), f"{name}: {parameter.name}"


# They follow gradients through the predictor itself.
DIFFERENTIATING = ("lmjax.attribution.gradients", "lmjax.attribution.optimised_mask")
EVALUATING = [
    pytest.param(value, id=name)
    for name, value in public_names()
    if name.split(".")[0] in ("attribution", "metrics")
    and inspect.isfunction(value)
    and value.__module__ not in DIFFERENTIATING
    and {"predictor", "batch_size", "engine"} & set(inspect.signature(value).parameters)
]


@pytest.mark.parametrize("function", EVALUATING)
def test_what_evaluates_takes_the_options_of_evaluate_and_hands_them_on(function):
    parameters = inspect.signature(function).parameters
    for option in ("batch_size", "progress", "engine", "mesh"):
        expected = inspect.signature(lmjax.evaluate).parameters[option].default
        assert parameters[option].default == expected, option
    arguments = {
        "predictor": lambda image, masks: masks.mean(axis=(1, 2))[:, None],
        "image": np.zeros((16, 16, 3), np.float32),
        "segments": np.arange(256).reshape(16, 16) // 32,
        "heatmap": np.ones((16, 16)),
        "masks": np.ones((2, 16, 16)),
        "key": jax.random.key(0),
    }
    given = {name: arguments[name] for name in arguments if name in parameters}
    for option, value in {"batch_size": -1, "engine": "none", "mesh": "all"}.items():
        with pytest.raises(ValueError, match=f"{option} must be"):
            function(**given, **{option: value})


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
    )
    subprocess.run([sys.executable, "-c", code], check=True)

"""The command line. Each command is a function; nothing heavy is imported before it runs."""

import importlib
import sys
import warnings
from pathlib import Path
from typing import Annotated

import tyro
from tyro.conf import Positional, arg

OptionalInt = Annotated[int | None, arg(metavar="INT")]
# What helps where memory runs out, by command.
_LESS_MEMORY = {
    "explain": "; use a smaller --batch-size or fewer segments",
    "study": "; use fewer segments, masks or samples, as far as the study has options for them",
    "bench": "; use fewer --variants",
    "train": "; use a larger --accumulate or a smaller --batch-size",
}


def explain(
    image: Annotated[Positional[str | None], arg(metavar="IMAGE")] = None,
    *,
    method: tuple[str, ...] = ("lime",),
    model: str = "resnet18_digits",
    weights: Annotated[str | None, arg(metavar="FILE")] = None,
    num_classes: OptionalInt = None,
    segments: str = "slic",
    n_segments: int = 50,
    samples: OptionalInt = None,
    removal: Annotated[tuple[str, ...] | None, arg(metavar="[STR [STR ...]]")] = None,
    metrics: bool = False,
    target: Annotated[str | None, arg(metavar="CLASS")] = None,
    seed: int = 0,
    batch_size: OptionalInt = None,
    output: Path = Path("explanation.png"),
) -> None:
    """Show which parts of an image a network uses, as a figure.

    Args:
        image: a photograph, or scene:N for the N-th bundled digit scene; the first by default.
        method: lime, kernelshap, shapley, banzhaf, occlusion, leave_one_out, leave_one_in, rise,
            sobol, hsic, meaningful, extremal, gradient, gradient_times_input, integrated_gradients,
            smoothgrad, gradcam; one or more, for a grid of methods and removals.
        model: network; `lmjax models` lists them.
        weights: .safetensors, .pth or a weight tag; the bundled weights by default.
        num_classes: of the weights; by default 1000, or 10 for digits.
        segments: slic, grid, quickshift or felzenszwalb.
        n_segments: about how many segments slic makes.
        samples: masked variants that a method evaluates under each removal, about; by default the
            method's own number (lime: 1000). Methods that do not sample have none.
        removal: how parts are removed: layer, no_padding, partial, black, white, grey, grey_smooth,
            image_mean, segment_mean, blur, gaussian_noise, uniform_noise, red, green, blue; one or
            more; layer, grey and black by default. The first three take a depth, as in layer@2. In
            a vision transformer, token_dropping takes their place. masking is the network's own:
            layer or token_dropping.
        metrics: measure deletion and insertion as well.
        target: class to explain, by number or name; the predicted one by default.
        seed: of everything random.
        batch_size: variants computed together; chosen by default.
        output: the figure (.png, .pdf, .svg); arrays (.npz) and settings (.json) go beside it.
    """
    from lmjax import explain as command

    explanation = command.explain(
        image,
        method=method,
        model=model,
        weights=weights,
        num_classes=num_classes,
        segments=segments,
        n_segments=n_segments,
        samples=samples,
        removal=removal,
        metrics=metrics,
        target=target,
        seed=seed,
        batch_size=batch_size,
        output=output,
    )
    print(command.summary(explanation))


def convert(source: Positional[Path], target: Positional[Path], *, tag: str | None = None) -> None:
    """Turn a .pth checkpoint into safetensors, recording where it came from.

    Args:
        source: the .pth, .pt, .ckpt or .safetensors file.
        target: the .safetensors file to write.
        tag: the published weights that the source is, if its file name does not tell.
    """
    from lmjax.models import convert as run

    recorded = run(source, target, tag=tag)
    print(f"wrote {target}")
    for name, value in recorded.items():
        print(f"  {name}: {value}")


def models(*, tags: bool = False) -> None:
    """List the networks: parameters, input size, published weights, engines.

    All run on full-size activations; most on visible positions only too (see docs/speed.md).

    Args:
        tags: list the weight tags of each network too.
    """
    from lmjax.models import registry

    for name in registry.names():
        network, weights = registry.network(name), registry.tags(name)
        size = network.preprocessing.crop
        engines = ", ".join(network.engines)
        print(
            f"{name:<20}{network.num_parameters:>12,}{size:>6} x {size}{len(weights):>4} weights  "
            f"{engines}"
        )
        for tag in weights if tags else ():
            print(f"  {tag}")


def train() -> None:
    """Train a network; resumes where it was stopped."""


def bench(
    *,
    out: Path = Path("runs/bench"),
    masks: str = "",
    variants: int = 64,
    rounds: int = 5,
    size: int = 224,
    samples: int = 1000,
) -> None:
    """Measure what a masked variant of resnet50 costs; needs a clone and its test extra.

    Args:
        out: folder for the tables (.md, .parquet) and the figure.
        masks: only kinds of masks whose name holds this; none for end-to-end runs alone.
        variants: of each kind of mask, a round.
        rounds: of measurement, after one to compile.
        size: side of the image, in pixels.
        samples: of LIME, end to end; 0 leaves the end-to-end runs out.
    """
    if not Path("benchmarks/bench.py").is_file():
        raise ValueError("lmjax bench measures with code of the repository: run it in a clone")
    sys.path.insert(0, str(Path.cwd()))
    from benchmarks import bench as command

    command.main(out=out, masks=masks, variants=variants, rounds=rounds, size=size, samples=samples)


def data_list(*, data_dir: Annotated[Path | None, arg(metavar="DIR")] = None) -> None:
    """List datasets: which are here, how to get the others, on what terms.

    Args:
        data_dir: folder of tensorflow-datasets; its own default otherwise.
    """
    from lmjax.data import catalogue

    print(catalogue.listing(data_dir))


def data_wordnet(*, out: Annotated[Path, arg(metavar="FILE")] = Path("wordnet.npy")) -> None:
    """Write how similar ImageNet's classes are, by WordNet, for `lmjax study removal --similarity`.

    Takes a few minutes; needs NLTK and its WordNet corpus.

    Args:
        out: the .npy file, a 1000 x 1000 matrix of Wu-Palmer similarity.
    """
    from lmjax.data.imagenet.synsets import wordnet

    wordnet.write_similarity(out)
    print(f"wrote {out}")


def study() -> None:
    """Run a study over many images, or report on some."""


def build(arguments: list[str]) -> tyro.extras.SubcommandApp:
    """The commands by name. Studies and training bring their own, which take a second to import."""
    data = tyro.extras.SubcommandApp()
    data.command(data_list, name="list")
    data.command(data_wordnet, name="wordnet")
    app = tyro.extras.SubcommandApp()
    app.command(explain)
    app.command(convert)
    app.command(models)
    app.command(data, name="data", help="Datasets.")
    app.command(bench)
    for command, package in ((study, "studies"), (train, "training")):
        if arguments[:1] == [command.__name__]:
            commands = importlib.import_module(f"lmjax.{package}.commands")
            app.command(commands.build(), name=command.__name__, help=command.__doc__)
        else:
            app.command(command)
    return app


def main(arguments: list[str] | None = None) -> None:
    """Runs a command. Bad input ends in one line on standard error and exit status 1."""
    warnings.showwarning = _show_warning
    arguments = sys.argv[1:] if arguments is None else arguments
    try:
        build(arguments).cli(
            prog="lmjax",
            description="Layer masking: what does a network see when part of an image is missing?",
            args=arguments,
        )
    except (ValueError, OSError, ImportError) as error:
        sys.exit(f"lmjax: error: {_one_line(getattr(error, 'short', error))}")
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and "RESOURCE_EXHAUSTED" not in str(error):
            raise
        sys.exit(f"lmjax: error: out of memory{_LESS_MEMORY.get(arguments[0], '')}")
    except KeyboardInterrupt:
        sys.exit(130)


def _one_line(message) -> str:
    return " ".join(str(message).split())


def _show_warning(message, category, filename, lineno, file=None, line=None) -> None:
    print(f"lmjax: warning: {_one_line(message)}", file=sys.stderr)

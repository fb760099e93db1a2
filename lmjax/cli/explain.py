"""`lmjax explain`: an option for each setting of an explanation."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

import lmjax
from lmjax._utils.renamed import old_names
from lmjax.cli.compilation_cache import compilation_cache
from lmjax.cli.options import documented, options_of
from lmjax.cli.terminal import say, say_written
from lmjax.explanation import ExplanationConfig
from lmjax.explanation.compute import explain_into_files

LESS_MEMORY = "use a smaller --batch-size or fewer segments"


def build() -> Callable[..., None]:
    """Returns the command."""
    options = options_of(ExplanationConfig)

    @compilation_cache()
    @documented
    def explain(
        images: Annotated[Positional[tuple[str, ...]], arg(metavar="[IMAGE ...]")] = (),
        config: Annotated[options, arg(name="")] = options(),  # noqa: B008 # pyright: ignore
        *,
        output: Annotated[Path | None, arg(metavar="PATH")] = None,
    ) -> None:
        """Explains one image or several, and prints a table of the results.

        Args:
            images: photographs; photograph:NAME for one that is installed with lmjax
                (chelsea, a cat, by default; astronaut, china, coffee, flower, hopper, rocket);
                scene:N for a digit scene.
            config: settings.
            output: the figure (.png, .jpg, .pdf, .svg), by default explanation.png; arrays (.npz)
                and settings (.json) go beside it. Of several images, a folder, by default
                explanations, where files are named after them; or a figure, whose name goes before
                theirs.
        """
        if len(images) > 1:
            _explain_several(images, config, output or Path("explanations"))
            return
        image = images[0] if images else None
        found = lmjax.explain(image, config=config, output=output or Path("explanation.png"))
        _print(found.summary(), found.files)

    return explain


def old_options(arguments: Sequence[str]) -> Mapping[str, str]:
    """Returns the options whose names changed: old name -> new name."""
    return old_names(ExplanationConfig)


def _explain_several(images: tuple[str, ...], config: ExplanationConfig, output: Path) -> None:
    found = explain_into_files(images, config=config, output=output)
    _print(found.table, found.files)
    if found.failures:
        failed = ", ".join(failure.image for failure in found.failures)
        raise ValueError(f"{len(found.failures)} of {len(images)} images left out: {failed}")


def _print(table: str, files: Sequence[Path]) -> None:
    say(f"{table}\n")
    for file in files:
        say_written(file)

"""`lmjax explain`: an option for each setting of an explanation."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

import lmjax
from lmjax.cli.compilation_cache import compilation_cache
from lmjax.cli.options import documented, options_of
from lmjax.cli.terminal import say
from lmjax.explanation import ExplanationConfig

LESS_MEMORY = "use a smaller --batch-size or fewer segments"


def build() -> Callable[..., None]:
    """Returns the command."""
    options = options_of(ExplanationConfig)

    @compilation_cache()
    @documented
    def explain(
        image: Annotated[Positional[str | None], arg(metavar="IMAGE")] = None,
        config: Annotated[options, arg(name="")] = options(),  # noqa: B008 # pyright: ignore
        *,
        output: Path = Path("explanation.png"),
    ) -> None:
        """Explains an image, and prints a table of the results.

        Args:
            image: a photograph; photograph:NAME for one that scikit-image ships (chelsea, a cat, by
                default), or scene:N for a digit scene.
            config: settings.
            output: the figure (.png, .pdf, .svg); arrays (.npz) and settings (.json) go beside it.
        """
        explanation = lmjax.explain(image, config=config, output=output)
        say(f"{explanation.summary()}\n")
        for file in explanation.files:
            say(f"wrote {file}")

    return explain

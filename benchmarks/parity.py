"""The ported networks against torchvision's: `python -m benchmarks.parity`, a Markdown table.

Random weights, batch-norm statistics and affine parameters drawn at random too, one random image,
nothing masked. Needs torch and torchvision (the extra `test`).
"""

import argparse

from lmjax.models import registry
from tests.torch_reference import parity, torchvision


def main() -> None:
    """Prints one row for each network that torchvision has too."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, nargs=2, default=(224, 224), metavar=("H", "W"))
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()

    print("| network | parameters | input | largest error / largest logit |")
    print("|---|---:|---:|---:|")
    for name in registry.names():
        if hasattr(torchvision.models, name):
            result = parity(name, size=tuple(arguments.size), seed=arguments.seed)
            size = "x".join(map(str, arguments.size))
            print(f"| {name} | {result.parameters:,} | {size} | {result.error:.1e} |", flush=True)


if __name__ == "__main__":
    main()

"""The ported networks against the originals: `python -m benchmarks.parity`, a Markdown table.

Random weights, batch-norm statistics and affine parameters drawn at random too, one random image,
nothing masked. Needs torch, torchvision and timm (the extra `test`).
"""

import tyro

from lmjax.models import registry
from tests.support.torch_reference import parity


def main(size: tuple[int, int] = (224, 224), seed: int = 0) -> None:
    """Prints one row for each network that torchvision or timm has too."""
    print("| network | parameters | input | largest error / largest logit |")
    print("|---|---:|---:|---:|")
    for name in registry.names():
        if registry.network(name).bundled is None:
            result = parity(name, size=size, seed=seed)
            shape = "x".join(map(str, size))
            print(f"| {name} | {result.parameters:,} | {shape} | {result.error:.1e} |", flush=True)


if __name__ == "__main__":
    tyro.cli(main)

"""Which of timm's convolutional classifiers `layer_mask` runs, unmodified.

    python -m benchmarks.coverage coverage.csv

Builds every network of `timm.list_models` whose family is no plain transformer with random weights
at 64 pixels (96 or its own size where it takes no smaller one), imports it, masks it, compiles it
and runs it on two images: all of the first is visible, half of the second is hidden and holds NaN.
The first answer has to be PyTorch's, the second finite. (Deep networks with random weights may have
an answer that float32 hardly determines: theirs may differ by three times what it moves by when the
images are scaled by 1 + 2e-7.) Goes on where an earlier run stopped. Then
prints the table of docs/foreign_networks.md. One network takes 5 to 60 seconds, all of them hours;
`--part 0 --parts 2` and `--part 1 --parts 2` divide them among two processes with a file each.
"""

import collections
import csv
import gc
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import numpy as np
import torch
import tyro

from benchmarks.harness import show
from lmjax.masking.transform import layer_mask
from lmjax.models.pytorch import import_module
from tests.support.torch_reference import timm

# Modules of timm whose networks are transformers: tokens mixed by attention or dense layers.
TRANSFORMERS = (
    "beit cait coat convit crossvit csatv2 davit deepseek_vit deit efficientformer "
    "efficientformer_v2 eva flexivit gcvit gemma4_vit hiera hieradet_sam2 levit mlp_mixer mvitv2 "
    "naflexvit nest pit pvt_v2 qwen3_vit sequencer swin_transformer swin_transformer_v2 "
    "swin_transformer_v2_cr tiny_vit tnt twins visformer vision_transformer "
    "vision_transformer_hybrid vision_transformer_relpos vision_transformer_sam vitamin volo xcit"
)
FAMILIES = {
    name: family
    for family in timm.list_modules()
    if family not in TRANSFORMERS.split(" ")
    for name in timm.list_models(module=family)
}
LARGEST = 250e6  # parameters
SECONDS = 240  # of all threads, for one network
TOLERANCE = 1e-4  # of the largest logit, between the masked network that sees all and PyTorch
COLUMNS = ("network", "family", "size", "status", "difference", "reason")
# Compiling is most of the time, and the programs run once.
FAST_COMPILATION = {
    "xla_backend_optimization_level": "0",
    "xla_llvm_disable_expensive_passes": "True",
}


class _TooLate(BaseException):
    """Not an Exception, so that no library takes it for an error of the network."""


@contextmanager
def time_limit(seconds: int) -> Iterator[None]:
    """Ends what runs inside after some seconds of the process's own time, as others may be busy."""

    def stop(*_: Any) -> None:
        raise _TooLate

    signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)


def size_of(module: torch.nn.Module) -> int:
    """Side of the smallest images that a network takes, of those that are tried."""
    config: Any = module.pretrained_cfg
    channels, own = config["input_size"][:2]
    for size in [own] if config.get("fixed_input_size") else (64, 96, 224, own):
        try:
            with torch.no_grad():
                module(torch.zeros(1, channels, size, size))
            return size
        except Exception:
            continue
    return own


def parameters(name: str) -> int:
    """How many parameters a network has."""
    with torch.device("meta"):
        return sum(p.numel() for p in timm.create_model(name).parameters())


def run(name: str) -> dict[str, Any]:
    """Runs a masked network on two images; returns their side and how far the answers are off."""
    torch.manual_seed(0)
    module = timm.create_model(name).eval()
    channels, size = module.pretrained_cfg["input_size"][0], size_of(module)
    images = np.random.default_rng(0).normal(size=(2, channels, size, size)).astype(np.float32)
    with torch.no_grad():
        whole = torch.from_numpy(images[:1].copy())
        expected, moved = (module(x).numpy() for x in (whole, whole * (1 + 2e-7)))
    graph, params = import_module(module, [1, channels, size, size], check=False)
    masks = np.ones((2, size, size), bool)
    masks[1, :, size // 2 :] = False
    images[1, :, ~masks[1]] = np.nan
    masked = jax.jit(layer_mask(graph, layout="NCHW")).lower(params, images, masks)
    logits = np.asarray(masked.compile(FAST_COMPILATION)(params, images, masks))
    return {"size": size, **judge(logits, expected, moved)}


def judge(logits: np.ndarray, expected: np.ndarray, moved: np.ndarray) -> dict[str, Any]:
    """Says whether answers to a visible and a half hidden image are right, as far as is known."""
    largest = np.abs(expected).max()
    difference = float(np.abs(logits[0] - expected[0]).max() / largest)
    finite = bool(np.isfinite(logits).all())
    right = finite and difference <= max(TOLERANCE, 3 * np.abs(moved - expected).max() / largest)
    reason = {} if right else {"reason": "differs from PyTorch" if finite else "NaN or infinite"}
    return {"status": "ran" if right else "wrong", "difference": f"{difference:.1e}", **reason}


def attempt(name: str) -> dict[str, Any]:
    """A row of the table."""
    row: dict[str, Any] = {"network": name, "family": FAMILIES[name]}
    try:
        if parameters(name) > LARGEST:
            reason = f"over {LARGEST / 1e6:.0f} million parameters"
            return row | {"status": "skipped", "reason": reason}
        with time_limit(SECONDS):
            return row | run(name)
    except _TooLate:
        return row | {"status": "late", "reason": f"{SECONDS} s"}
    except Exception as error:
        return row | {"status": type(error).__name__, "reason": " ".join(str(error).split())[:300]}
    finally:
        gc.collect()
        jax.clear_caches()
        torch.compiler.reset()


def families(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """How many networks of each family were tried and ran."""
    counts: dict[str, collections.Counter] = collections.defaultdict(collections.Counter)
    for row in rows:
        counts[row["family"]][row["status"]] += 1
    return [
        {"family": f, "networks": c.total(), "ran": c["ran"], "not tried": c["skipped"]}
        for f, c in sorted(counts.items())
    ]


def main(output: tyro.conf.Positional[Path], *, part: int = 0, parts: int = 1) -> None:
    """Runs the networks that the file does not hold yet, and prints the table."""
    rows = list(csv.DictReader(output.open())) if output.exists() else []
    done = {row["network"] for row in rows}
    with output.open("a", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        if not done:
            writer.writeheader()
        for name in sorted(set(sorted(FAMILIES)[part::parts]) - done):
            rows.append(attempt(name))
            writer.writerow(rows[-1])
            file.flush()
    show(families(rows))
    show([r for r in rows if r["status"] not in ("ran", "skipped")])


if __name__ == "__main__":
    tyro.cli(main)

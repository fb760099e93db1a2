"""What reading costs a study: `python -m benchmarks.reading`, a Markdown table.

The removal study over photographs as ImageNet has them (JPEG, 500 x 375), from a folder and from
memory, in turns; medians count. The fewer variants a study asks about, the more reading matters:
by default one removal at three fractions, of which one is the whole image. Weights are random.

Processor time counts too, since on a machine with other work clocks tell little: that of reading
alone, as a share of the study's.
"""

import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import skimage.data
import tyro
from PIL import Image

from benchmarks.memory import random_predictor
from lmjax.data import from_folder
from lmjax.studies import SegmentRemoval, run

PHOTOGRAPHS = ("astronaut", "chelsea", "coffee", "rocket")


class Memory:
    """The examples of a source, read already."""

    version = "memory"

    def __init__(self, source):
        self._examples = [source[i] for i in range(len(source))]

    def __len__(self) -> int:
        return len(self._examples)

    def __getitem__(self, index: int):
        return self._examples[index]


def write_photographs(folder: Path, count: int, *, width: int = 500, height: int = 375) -> float:
    """Crops of scikit-image's photographs, resized, as JPEG files in a class folder.

    Returns:
      Their mean size in bytes.
    """
    rng = np.random.default_rng(0)
    folder = folder / "0"
    folder.mkdir(parents=True)
    for i in range(count):
        pixels = getattr(skimage.data, PHOTOGRAPHS[i % len(PHOTOGRAPHS)])()
        photograph = Image.fromarray(pixels)
        share = rng.uniform(0.6, 1) * min(photograph.width / width, photograph.height / height)
        wide, high = share * width, share * height
        left, top = rng.uniform(0, (photograph.width - wide, photograph.height - high))
        box = (left, top, left + wide, top + high)
        crop = photograph.resize((width, height), Image.Resampling.BICUBIC, box=box)
        crop.save(folder / f"{i}.jpg", quality=95)
    return statistics.mean(path.stat().st_size for path in folder.iterdir())


def clocks() -> np.ndarray:
    """Seconds on the wall, and of the processor in all threads."""
    return np.array([time.perf_counter(), time.process_time()])


def main(
    model: str = "resnet50",
    photographs: int = 100,
    images: int = 16,
    fractions: tuple[float, ...] = (0.0, 0.25, 0.5),
    rounds: int = 5,
) -> None:
    """Prints milliseconds an image of reading alone and of the study, and their ratios.

    Args:
        model: a network of the registry.
        photographs: written and read.
        images: of them, in the study.
        fractions: of segments to remove.
        rounds: of measurement, after one that compiles.
    """
    classifier = random_predictor(model).classifier
    study = SegmentRemoval(removals=("layer",), orders=("random",), fractions=fractions)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        size = write_photographs(folder / "photographs", photographs)
        source = from_folder(folder / "photographs")
        sources = {"folder": source, "memory": Memory(source)}
        took = {"reading": [], "folder": [], "memory": []}
        for i in range(rounds + 1):
            start = clocks()
            for k in range(photographs):
                source[k]
            took["reading"].append((clocks() - start) / photographs)
            for kind, each in sources.items():
                out, start = folder / f"{kind}-{i}", clocks()
                run(study, each, networks={model: classifier}, out=out, images=images)
                took[kind].append((clocks() - start) / images)
    took = {kind: 1e3 * np.array(each[1:]) for kind, each in took.items()}
    print(
        f"{model}, {images} of {photographs} JPEG files of {size / 1e3:.0f} kB, "
        f"{len(fractions)} variants an image, {rounds} rounds\n"
    )
    print("| milliseconds an image | wall | processor |\n|---|---:|---:|")
    rows = {
        "reading alone": "reading",
        "study, images in memory": "memory",
        "study, images in a folder": "folder",
    }
    for title, kind in rows.items():
        wall, processor = np.median(took[kind], axis=0)
        print(f"| {title} | {wall:.1f} | {processor:.1f} |")
    for title, ratios in (
        ("reading alone, of the study in memory", took["reading"] / took["memory"]),
        ("folder against memory", took["folder"] / took["memory"]),
    ):
        wall, processor = np.median(ratios, axis=0)
        print(f"| {title} | {wall:.3f} | {processor:.3f} |")


if __name__ == "__main__":
    tyro.cli(main)

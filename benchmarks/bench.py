"""What a masked variant of resnet50 costs, by kind of mask and engine: `lmjax bench`.

All contenders take turns in one process on the same masks, since machines drift: lmjax's engines,
its plain network, torchvision's (in its faster memory format), and layer masking in PyTorch as the
paper's recipe reads (`torch_layer_masking.py`). Ratios are taken within each round; the tables give
their medians and quartiles.

With `end_to_end`, LIME from image to scores: lmjax's, and the loops of the lime and Captum packages
around the unmasked network; and a whole sweep of sliding occlusion.
"""

import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import psutil
import torch
import tyro

import lmjax
from benchmarks import torch_layer_masking
from benchmarks.memory import peak_memory
from lmjax.evaluation import plan, programs
from lmjax.evaluation.evaluator import _prepare
from lmjax.masking.sparse.rows import Capacities, Positions
from lmjax.masks import Coalitions, segments
from lmjax.masks.families import MaskFamily, Masks, Windows
from lmjax.models import Classifier, checkpoints, registry
from tests.support import torch_reference

RECIPE = "PyTorch recipe"
TORCHVISION = "torchvision, unmasked"
UNMASKED = "lmjax, unmasked"
ENGINES = ("dense", "visible", "shared", "auto")
_FEW = 16  # variants a round, for contenders whose time does not depend on the masks
_FEWER = 8
_SETTLING = 3  # runs until "auto" has seen that other ways pay


class Networks(NamedTuple):
    """The same random weights three times."""

    classifier: Classifier
    torch_nchw: torch.nn.Module
    torch_nhwc: torch.nn.Module

    @classmethod
    def make(cls) -> "Networks":
        network = registry.network("resnet50")
        module = network.build()
        model = torch_reference.build("resnet50", 0)
        variables = checkpoints.to_variables(
            torch_reference.state_dict(model), checkpoints.abstract_variables(module)
        )
        classifier = Classifier(jax.tree.map(jnp.asarray, variables), module, network.preprocessing)
        nhwc = torch_reference.build("resnet50", 0).to(memory_format=torch.channels_last)
        return cls(classifier, model, nhwc)


def photograph(size: int) -> np.ndarray:
    """`[size, size, 3]` in [0, 1]."""
    from skimage.data import astronaut
    from skimage.transform import resize

    return resize(astronaut(), (size, size), anti_aliasing=True).astype(np.float32)


def patches(image: np.ndarray, count: int, share: float) -> MaskFamily:
    """16-pixel patches that stay visible with probability `share`."""
    labels = segments.grid(image, size=16)
    return _coalitions(labels, count, share)


def superpixels(image: np.ndarray, count: int, share: float) -> MaskFamily:
    """SLIC superpixels, about 50."""
    return _coalitions(segments.slic(image, n_segments=50), count, share)


def _coalitions(labels: np.ndarray, count: int, share: float) -> Coalitions:
    """Random ones; each keeps a segment at least."""
    num_segments = int(labels.max()) + 1
    keep = np.random.default_rng(0).random((count, num_segments)) < share
    keep[np.arange(count), np.arange(count) % num_segments] = True
    return Coalitions(labels, keep)


def blobs(image: np.ndarray, count: int, share: float) -> MaskFamily:
    """A disc at a random place, as large as `share` of the image."""
    height, width = image.shape[:2]
    rng = np.random.default_rng(0)
    radius = np.sqrt(share * height * width / np.pi)
    centres = rng.uniform(min(radius, height / 2), height - min(radius, height / 2), (count, 2))
    rows, columns = np.ogrid[:height, :width]
    inside = [(rows - r) ** 2 + (columns - c) ** 2 <= radius**2 for r, c in centres]
    return Masks(np.array(inside))


def full(image: np.ndarray, count: int, share: float) -> MaskFamily:
    """Everything visible."""
    return Masks(np.ones((count, *image.shape[:2]), bool))


def occlusion(image: np.ndarray, count: int, share: float) -> MaskFamily:
    """A 16-pixel hole that slides by 8 pixels; some consecutive places in the middle."""
    sweep = sliding(image)
    start = max((len(sweep) - count) // 2, 0)
    return Windows(image.shape[:2], sweep.corners[start : start + count], (16, 16))


def sliding(image: np.ndarray) -> Windows:
    """The whole sweep."""
    places = [np.arange(0, n - 8, 8) for n in image.shape[:2]]
    corners = np.stack(np.meshgrid(*places, indexing="ij"), axis=-1).reshape(-1, 2)
    return Windows(image.shape[:2], corners, (16, 16))


GRID = [
    ("full", full, 1.0),
    *(("patches", patches, share) for share in (0.5, 0.25, 0.1, 0.02)),
    *(("superpixels", superpixels, share) for share in (0.5, 0.25, 0.1)),
    *(("blob", blobs, share) for share in (0.5, 0.25, 0.1, 0.02)),
    ("sliding occlusion", occlusion, 1.0),
]


class Contender(NamedTuple):
    """A function that computes some variants and returns logits."""

    run: Callable[[], np.ndarray]
    variants: int


def contenders(networks: Networks, image: np.ndarray, masks: MaskFamily) -> dict[str, Contender]:
    """All of them, on the first variants of `masks` or on all."""
    classifier = networks.classifier
    few = np.array(masks.masks(slice(_FEW)))
    painted = np.where(few[..., None], np.asarray(classifier.normalise(image)), 0)
    nchw = torch_reference.to_torch(painted)
    nhwc, torch_masks = nchw.contiguous(memory_format=torch.channels_last), torch.from_numpy(few)
    predictor = lmjax.Predictor(classifier, lmjax.LayerMasking())
    grey = lmjax.Predictor(classifier, lmjax.Replace("grey"))

    def unmasked():
        with torch.inference_mode():
            return torch.cat([networks.torch_nhwc(x) for x in nhwc.split(_FEWER)]).numpy()

    def recipe():
        x, mask = nchw[:_FEWER], torch_masks[:_FEWER]
        return torch_layer_masking.resnet(networks.torch_nchw, x, mask).numpy()

    def in_lmjax(engine, masks):
        return Contender(
            lambda: lmjax.evaluate(predictor, image, masks, engine=engine, progress=False),
            len(masks),
        )

    return {
        RECIPE: Contender(recipe, _FEWER),
        TORCHVISION: Contender(unmasked, _FEW),
        UNMASKED: Contender(lambda: lmjax.evaluate(grey, image, few, progress=False), _FEW),
        "dense": in_lmjax("dense", few),
        **{engine: in_lmjax(engine, masks) for engine in ENGINES[1:]},
    }


def matmul_rate(n: int = 1024) -> float:
    """Multiplications and additions a second of a product of n x n matrices, the best of a few."""
    x = jnp.ones((n, n))
    product = jax.jit(lambda x: jnp.matmul(x, x, precision=jax.lax.Precision.HIGHEST))
    jax.block_until_ready(product(x))
    return 2 * n**3 / min(_seconds(lambda: jax.block_until_ready(product(x))) for _ in range(10))


def _seconds(run: Callable) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def measure(
    networks: Networks, image: np.ndarray, grid: list, *, variants: int, rounds: int
) -> list[dict]:
    """A row for each kind of mask and contender."""
    rate, rows = 0.0, []
    for kind, family, share in grid:
        masks = family(image, variants, share)
        runs = contenders(networks, image, masks)
        plan.forget()  # so that each engine has programs made for these masks
        first = {name: _seconds(run.run) for name, run in runs.items()}
        for _ in range(_SETTLING):
            runs["auto"].run()
        milliseconds = {name: [] for name in runs}
        for _ in range(rounds):
            rate = max(rate, matmul_rate())
            for name, (run, count) in runs.items():
                milliseconds[name].append(1e3 * _seconds(run) / count)
        milliseconds = {name: np.array(each) for name, each in milliseconds.items()}
        work = _work(networks, image, masks)
        logits, memory = _logits_and_memory(runs)
        expected = logits[RECIPE]
        scale = np.abs(expected).max()
        for name, times in milliseconds.items():
            ratios = np.percentile(milliseconds[RECIPE] / times, (25, 50, 75))
            # What hidden positions cost the others is no use of theirs.
            kept = work["multiplications"] if name in (*ENGINES, RECIPE) else work["all"]
            floor = 1e3 * 2 * kept / rate
            error = 0.0
            if name in ENGINES:
                error = np.abs(logits[name][: len(expected)] - expected).max() / scale
            rows.append(
                {
                    "masks": kind,
                    "visible": float(np.asarray(masks.masks()).mean()),
                    "asked": share,
                    "kept": work["share"],
                    "contender": name,
                    "ms": float(np.median(times)),
                    "against_recipe_q1": float(ratios[0]),
                    "against_recipe": float(ratios[1]),
                    "against_recipe_q3": float(ratios[2]),
                    "counting_ms": work["counting_ms"] if name in ENGINES[1:] else 0.0,
                    "compile_s": first[name] - np.median(times) * runs[name].variants / 1e3,
                    "gflops": float(2 * kept / np.median(times) / 1e6),
                    "share_of_floor": float(floor / np.median(times)),
                    "floor_ms": float(floor),
                    "index_ms": work["index_ms"] if name == "visible" else 0.0,
                    "memory_mb": memory[name],
                    "error": float(error),
                }
            )
            print(_line(rows[-1]), flush=True)
    return rows


def _logits_and_memory(runs: dict[str, Contender]) -> tuple[dict, dict]:
    """Of each contender its logits, and by how many MB the process grows while it runs."""
    logits, memory = {}, {}
    for name, (run, _) in runs.items():
        before = psutil.Process().memory_info().rss / 1e6
        peak: dict[str, float] = {}
        with peak_memory(peak, name):
            logits[name] = run()
        memory[name] = peak[name] - before
    return logits, memory


def _work(networks: Networks, image: np.ndarray, masks: MaskFamily) -> dict[str, float]:
    """What the convolutions multiply for a variant's visible positions, counted, and its share."""
    predictor = lmjax.Predictor(networks.classifier, lmjax.LayerMasking())
    job = _prepare(predictor, image, masks, None)
    counts = programs.count_rows(job)
    seconds = _seconds(lambda: programs.count_rows(job))
    share = float(counts.work(counts.rows).mean())
    everything = float(counts.products.sum(axis=0) @ counts.full)
    return {
        "share": share,
        "all": everything,
        "multiplications": share * everything,
        "counting_ms": 1e3 * seconds / len(masks),
        "index_ms": 1e3 * _seconds_for_index_maps(job) / len(masks),
    }


class _Recording(Capacities):
    """Keeps the positions that all others follow from."""

    def first(self, mask, touched, reach):
        self.root = super().first(mask, touched, reach)
        return self.root


def _seconds_for_index_maps(job: programs.Job) -> float:
    """To find visible positions' rows, and which of them windows read, without computing them."""
    chosen = plan.make_plan(job, "visible", able=True)

    @jax.jit
    def find(arrays, image, shared, rows):
        rows, real = rows
        ledger = _Recording(chosen.room.rows)
        masks = job.static.make(shared, rows) & real[:, None, None]
        job.static.predictor(arrays).on_visible(image, masks, ledger)
        return [x.sum() for x in _index_maps(ledger.root)]

    def find_all():
        for batch in chosen.visible:
            numbers = np.full(chosen.room.variants, -1)
            numbers[: len(batch)] = batch
            rows = job.take(numbers), numbers >= 0
            jax.block_until_ready(find(*job.arguments(rows)))

    find_all()
    return _seconds(find_all)


def _index_maps(positions: Positions) -> list[jax.Array]:
    """All arrays that were made of the positions."""
    found, waiting, seen = [], [positions], set()
    while waiting:
        each = waiting.pop()
        if isinstance(each, jax.Array):
            found.append(each)
        elif id(each) not in seen:
            seen.add(id(each))
            waiting += [each.index, each.flat, *each._made.values()]
    return found


def end_to_end(networks: Networks, image: np.ndarray, *, samples: int, rounds: int) -> list[dict]:
    """LIME from image to scores, and a whole sweep of sliding occlusion, under layer masking.

    PyTorch's time for these variants is that of a few of them, times all.
    """
    predictor = lmjax.Predictor(networks.classifier, lmjax.LayerMasking())
    sweep = sliding(image)

    def lime():
        labels = segments.slic(image, n_segments=50)
        key = jax.random.key(0)
        lmjax.attribution.lime(
            predictor, image, labels, key=key, num_samples=samples, engine="auto"
        )

    def occlude():
        lmjax.evaluate(predictor, image, sweep, engine="auto")

    rows = []
    for task, run, count, family in (
        ("LIME", lime, samples, superpixels(image, _FEW, 0.5)),
        ("sliding occlusion", occlude, len(sweep), occlusion(image, _FEW, 1.0)),
    ):
        others = contenders(networks, image, family)
        seconds = {"lmjax, compiling": [_seconds(run)], "lmjax": [], RECIPE: [], TORCHVISION: []}
        for _ in range(rounds):
            for name in (RECIPE, TORCHVISION):
                each = others[name]
                seconds[name].append(_seconds(each.run) / each.variants * count)
            seconds["lmjax"].append(_seconds(run))
        if task == "LIME":
            seconds |= {
                "lime package, unmasked torchvision": [_lime_package(networks, image, samples)],
                "Captum, unmasked torchvision": [_captum(networks, image, samples)],
            }
        recipe = np.median(seconds[RECIPE])
        for name, each in seconds.items():
            row = {"task": task, "variants": count, "contender": name}
            rows.append(row | {"seconds": float(np.median(each))})
            rows[-1]["against_recipe"] = float(recipe / np.median(each))
            print(rows[-1], flush=True)
    return rows


def _lime_package(networks: Networks, image: np.ndarray, samples: int) -> float:
    """The lime package's own loop, with its default batches of 10."""
    from lime.lime_image import LimeImageExplainer

    def probabilities(images):
        normalised = np.asarray(networks.classifier.normalise(images.astype(np.float32)))
        batch = torch_reference.to_torch(normalised).contiguous(memory_format=torch.channels_last)
        with torch.inference_mode():
            return networks.torch_nhwc(batch).softmax(-1).numpy()

    def explain():
        LimeImageExplainer(random_state=0).explain_instance(
            image.astype(float),
            probabilities,
            top_labels=1,
            num_samples=samples,
            segmentation_fn=lambda x: segments.slic(x.astype(np.float32), n_segments=50),
        )

    return _seconds(explain)


def _captum(networks: Networks, image: np.ndarray, samples: int) -> float:
    """Captum's own loop, in batches of 8."""
    from captum.attr import Lime

    def explain():
        labels = torch.from_numpy(segments.slic(image, n_segments=50)).long()[None]
        inputs = torch_reference.to_torch(np.asarray(networks.classifier.normalise(image))[None])
        with torch.no_grad():
            Lime(networks.torch_nhwc).attribute(
                inputs.contiguous(memory_format=torch.channels_last),
                target=0,
                feature_mask=labels,
                n_samples=samples,
                perturbations_per_eval=_FEWER,
            )

    return _seconds(explain)


def _line(row: dict) -> str:
    kind = row["masks"] if row["asked"] == 1 else f"{row['masks']}, {row['asked']:.0%}"
    quartiles = f"{row['against_recipe_q1']:.2f} to {row['against_recipe_q3']:.2f}"
    return (
        f"| {kind} | {row['kept']:.2f} | {row['contender']} | {row['ms']:.1f} | "
        f"{row['against_recipe']:.2f} ({quartiles}) | {row['gflops']:.0f} | "
        f"{row['share_of_floor']:.0%} | {row['counting_ms']:.1f} | {row['index_ms']:.1f} | "
        f"{row['compile_s']:.0f} | {row['memory_mb']:.0f} | {row['error']:.0e} |"
    )


def markdown(rows: list[dict], tasks: list[dict]) -> str:
    """Both tables."""
    lines = [
        "| masks | kept work | contender | ms a variant | against the recipe (quartiles) "
        "| GFLOP/s | of the floor | counting, ms | index maps, ms | compiling, s | memory, MB "
        "| error |",
        "|---|---:|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|",
        *map(_line, rows),
    ]
    if tasks:
        lines += ["", "| task | contender | seconds | against the recipe |", "|---|---|---:|---:|"]
    for row in tasks:
        task = f"{row['task']}, {row['variants']} variants"
        seconds, against = f"{row['seconds']:.1f}", f"{row['against_recipe']:.2f}"
        lines.append(f"| {task} | {row['contender']} | {seconds} | {against} |")
    return "\n".join(lines) + "\n"


def figure(rows: list[dict], path: Path) -> None:
    """Cost against kept work, by contender, with the floor."""
    from matplotlib.figure import Figure

    drawing = Figure(figsize=(10, 5), layout="constrained")
    axes = drawing.add_subplot()
    for name in (RECIPE, TORCHVISION, *ENGINES):
        points = [(row["kept"], row["ms"]) for row in rows if row["contender"] == name]
        axes.plot(*zip(*points), ".", label=name, markersize=10)
    floor = next(row["floor_ms"] / row["kept"] for row in rows if row["contender"] == "visible")
    axes.plot([0, 1], [0, floor], color="black", linewidth=1, label="floor: matrix products alone")
    axes.set(xlim=(0, 1.02), ylim=(0, None))
    axes.set_xlabel("share of the network's multiplications at visible positions")
    axes.set_ylabel("milliseconds a variant")
    axes.set_title("resnet50 under layer masking: cost of a variant")
    drawing.legend(loc="outside right upper")
    drawing.savefig(path, dpi=120)


def main(
    *,
    out: Path = Path("runs/bench"),
    masks: str = "",
    variants: int = 64,
    rounds: int = 5,
    size: int = 224,
    samples: int = 1000,
) -> None:
    """Measure what a masked variant of resnet50 costs.

    Args:
        out: folder for the tables (.md, .parquet) and the figure.
        masks: only kinds whose name holds this; "none" leaves only the end-to-end runs.
        variants: of each kind of mask, a round.
        rounds: of measurement, after one to compile.
        size: side of the image, in pixels.
        samples: of LIME, end to end; 0 leaves the end-to-end runs out.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    networks, image = Networks.make(), photograph(size)
    grid = [each for each in GRID if masks in each[0]]
    print(f"resnet50, {size}x{size}, float32, {variants} variants, {rounds} rounds,", end=" ")
    print(f"{jax.devices()[0].device_kind}, jax {jax.__version__}, torch {torch.__version__}")
    rows = measure(networks, image, grid, variants=variants, rounds=rounds)
    tasks = end_to_end(networks, image, samples=samples, rounds=rounds) if samples else []
    out.mkdir(parents=True, exist_ok=True)
    (out / "bench.md").write_text(markdown(rows, tasks))
    pq.write_table(pa.Table.from_pylist(rows), out / "bench.parquet")
    if tasks:
        pq.write_table(pa.Table.from_pylist(tasks), out / "end_to_end.parquet")
    if rows:
        figure(rows, out / "bench.png")
    print(f"wrote {out}")


if __name__ == "__main__":
    tyro.cli(main)

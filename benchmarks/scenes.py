"""Large scenes: seconds that merging takes, memory that a scene takes, by number of boxes and rows.

    python benchmarks/scenes.py --merge           # beside SAHI and supervision
    python benchmarks/scenes.py --memory          # scenes of 10,000, 20,000 and 40,000 rows

The scenes are painted: 200,000 objects of 3 to 30 px on 20,000 x 20,000 px. A slicer that is not
installed is left out: pip install sahi supervision (in an environment of their own). Seconds of
merging are of one thread's processor, so that a busy machine does not decide.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from slicers import Array, Found, is_installed

from rfla.cfg import load_config
from rfla.engine.inference import Inference
from rfla.engine.model_source import weights_metadata
from rfla.models import build_detector
from rfla.models.weights import save_weights
from rfla.predict import merge_tiles, plan_tiles
from rfla.predict.command import predict

# Boxes that a slicer merges within a minute.
MOST_BOXES = {"rfla": 10**9, "sahi": 50_000, "supervision": 5_000}
COLUMNS, SIDE, OVERLAP = 20_000, 800, 160  # px of the scenes and their slices
CELL = (50, 40)  # px: width and height of the place that each object has for itself

# ---------------------------------------------------------------------- merging


def painted_scene(count: int) -> tuple[list[Found], Array, tuple[int, int]]:
    """Return what slices of 800 px show of `count` objects of 3 to 30 px, 200,000 on 20,000 px."""
    rng = np.random.default_rng(0)
    length = max(round((count / 200_000) ** 0.5 * COLUMNS), 1000)
    tiles = plan_tiles(length, length, SIDE, OVERLAP)
    corner = rng.random((count, 2)) * (length - 30)
    boxes = np.concatenate([corner, corner + rng.integers(3, 31, (count, 2))], axis=1)
    found = []
    for shown in shown_in(boxes, tiles):
        found.append((shown, rng.random(len(shown)), np.zeros(len(shown), np.int64)))
    return found, tiles, (length, length)


def shown_in(boxes: Array, tiles: Array) -> Iterator[Array]:
    """Yield what each tile shows of (G, 4) objects of at most 30 px, in px of the tile."""
    boxes = boxes[np.argsort(boxes[:, 1])]
    tops = boxes[:, 1]
    for x1, y1, x2, y2 in tiles.astype(float):
        row = boxes[np.searchsorted(tops, y1 - 31) : np.searchsorted(tops, y2)]
        shown = np.clip(row, [x1, y1, x1, y1], [x2, y2, x2, y2])
        yield shown[((shown[:, 2:] - shown[:, :2]) > 0).all(axis=1)] - [x1, y1, x1, y1]


def time_merging() -> None:
    """Merge the boxes of painted scenes; others where they end within minutes."""
    torch.set_num_threads(1)
    for objects in (1_000, 10_000, 125_000, 200_000):
        found, tiles, shape = painted_scene(objects)
        count = sum(len(scores) for _, scores, _ in found)
        for name, rule in _mergers(found, tiles, shape):
            if count > MOST_BOXES[name.split()[0]]:
                continue
            started = time.process_time()
            left = rule()
            print(f"{count} boxes, {name}: {time.process_time() - started:.2f} s, {left} left")


def _mergers(
    found: list[Found], tiles: Array, shape: tuple[int, int]
) -> Iterator[tuple[str, Callable[[], int]]]:
    yield "rfla seam", lambda: len(merge_tiles(found, tiles, shape)[1])
    yield "rfla nms", lambda: len(merge_tiles(found, tiles, shape, "nms")[1])
    boxes = np.concatenate(
        [part[0] + np.tile(tile[:2], 2) for part, tile in zip(found, tiles, strict=True)]
    )
    scores = np.concatenate([part[1] for part in found])
    table = np.column_stack([boxes, scores, np.zeros(len(scores))])
    if is_installed("sahi"):
        from sahi.postprocess.combine import GreedyNMMPostprocess, NMSPostprocess
        from sahi.prediction import ObjectPrediction

        made = [
            ObjectPrediction(bbox=row[:4], category_id=0, category_name="0", score=row[4])
            for row in (table if len(table) <= 50_000 else table[:1]).tolist()
        ]
        yield "sahi GREEDYNMM", lambda: len(GreedyNMMPostprocess(0.5, "IOS")(made))
        yield "sahi NMS", lambda: len(NMSPostprocess(0.5, "IOU")(made))
    if is_installed("supervision"):
        import supervision

        every = supervision.Detections(
            boxes, confidence=scores, class_id=np.zeros(len(scores), int)
        )
        yield "supervision NMS", lambda: len(every.with_nms(0.5))


# ---------------------------------------------------------------------- memory


def write_scene(path: Path, rows: int) -> None:
    """Write a compressed tiled GeoTIFF by windows."""
    import rasterio
    from rasterio.transform import from_origin
    from rasterio.windows import Window

    block = (
        np.random.default_rng(0).integers(0, 255, (3, 64, 64), np.uint8).repeat(8, 1).repeat(8, 2)
    )
    kind = {"driver": "GTiff", "dtype": "uint8", "count": 3, "photometric": "RGB", "tiled": True}
    kind |= {"compress": "deflate", "blockxsize": 512, "blockysize": 512, "zlevel": 1}
    kind |= {"crs": "EPSG:32632", "transform": from_origin(500_000, 5_000_000, 0.3, 0.3)}
    with rasterio.open(path, "w", height=rows, width=COLUMNS, **kind) as file:
        for y in range(0, rows, 512):
            for x in range(0, COLUMNS, 512):
                high, wide = min(512, rows - y), min(512, COLUMNS - x)
                file.write(block[:, :high, :wide], window=Window(x, y, wide, high))


def objects_of(rows: int) -> Array:
    """Return (G, 4) objects of 3 to 30 px, one in each cell of a scene: none touches another."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[0 : rows // CELL[1], 0 : COLUMNS // CELL[0]].reshape(2, -1)
    side = rng.integers(3, 31, (len(x), 2))
    corner = np.stack([x, y], axis=1) * CELL + rng.random((len(x), 2)) * (np.array(CELL) - side)
    return np.concatenate([corner, corner + side], axis=1)


class NoNetwork:
    """Takes batches as a network does and reports what each slice shows of the objects, cut."""

    def __init__(self, rows: int) -> None:
        self.shown = shown_in(objects_of(rows), plan_tiles(rows, COLUMNS, SIDE, OVERLAP))
        self.rng = np.random.default_rng(0)

    def __call__(
        self, images: Any, sizes: Any, scales: Any, original_sizes: Any, speed: Any
    ) -> list[dict[str, torch.Tensor]]:
        """Return the boxes of the next slices."""
        speed.images += len(original_sizes)
        outputs = []
        for _, boxes in zip(original_sizes, self.shown, strict=False):
            scores = np.sort(self.rng.uniform(0.3, 1, len(boxes)))[::-1]
            output = {"boxes": boxes, "scores": scores.copy(), "labels": np.zeros(len(boxes), int)}
            outputs.append({key: torch.from_numpy(value) for key, value in output.items()})
        return outputs


def memory_of(what: str) -> float:
    """Return `VmRSS` (now) or `VmHWM` (the most so far) of this process, MB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(float(line.split()[1]) for line in lines if line.startswith(what)) / 1024


def one_scene(path: Path) -> None:
    """Run `rfla predict` on a scene without a network, and print the peak of memory."""
    rows = int(path.stem)
    net = build_detector("fcos_p2", num_classes=1, settings={"backbone.name": "resnet18"})
    weights = path.with_suffix(".safetensors")
    save_weights(weights, net.state_dict(), weights_metadata(net.config, ("a",), SIDE, {}, {}))
    no_network = NoNetwork(rows)
    Inference.__call__ = lambda _, *given: no_network(*given)  # type: ignore[method-assign]
    given = {"model": str(weights), "source": str(path), "slice": SIDE, "overlap": OVERLAP}
    given |= {"project": str(path.parent), "name": "run", "device": "cpu", "batch": 4}
    given |= {"save_density": True, "save_csv": True, "exist_ok": True, "verbose": False}
    before = memory_of("VmRSS")
    started = time.perf_counter()
    predict(load_config(given, mode="predict"))
    seconds, peak = time.perf_counter() - started, memory_of("VmHWM")
    print(
        f"{rows} rows, {len(objects_of(rows))} objects: {peak - before:.0f} MB above {before:.0f} "
        f"MB with torch, a model and the true boxes, {seconds:.0f} s",
        flush=True,
    )


def measure_memory() -> None:
    """Predict scenes of growing height, each in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        for rows in (10_000, 20_000, 40_000):
            path = Path(folder) / f"{rows}.tif"
            write_scene(path, rows)
            subprocess.run([sys.executable, __file__, "--scene", str(path)], check=True)
            path.unlink()


def main() -> None:
    """Run what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--merge", action="store_true")
    parser.add_argument("--memory", action="store_true")
    parser.add_argument("--scene", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.merge:
        time_merging()
    if given.memory:
        measure_memory()
    if given.scene:
        one_scene(given.scene)


if __name__ == "__main__":
    main()

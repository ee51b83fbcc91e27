"""Throughput of the loader beside torchvision's reference pipeline, in one run.

And the time to index AI-TOD's size.

    python benchmarks/loader.py --images 48 --workers 0 2
    python benchmarks/loader.py --index

Both read the same 800 x 800 px files (demo scenes enlarged, so that they compress like photographs)
with 100 boxes each. The reference is that of torchvision's references/detection: `CocoDetection`
wrapped for transforms v2, its "hflip" preset (flip, float image, clean boxes), Pillow decoding.
Ours decodes to uint8; floats are made on the device. Four kinds of work: none; a left-right flip in
both; the default augmentation of rfla against that preset, which only flips; and against
torchvision's own zoomed crop, both flips and colour (it has no quarter turns of boxes).
Measurements alternate between the two; the median of the repeats is shown.
"""

import argparse
import contextlib
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import cv2
import numpy as np
import torch
from torch.utils.data import DataLoader
from torchvision.datasets import CocoDetection, wrap_dataset_for_transforms_v2
from torchvision.transforms import v2

from rfla.data import (
    Augmentation,
    DetectionDataset,
    TrainSampler,
    build_loader,
    load_data_spec,
    load_index,
)
from rfla.tools.demo import paint_scene

SIDE, BOXES, BATCH = 800, 100, 4


def write_set(folder: Path, suffix: str, count: int) -> None:
    """`count` images of 800 px with 100 boxes each, COCO form."""
    rng = np.random.default_rng(0)
    (folder / "images").mkdir(parents=True)
    (folder / "annotations").mkdir()
    images, annotations = [], []
    for number in range(count):
        scene = cv2.resize(paint_scene(number % 14)[0], (SIDE, SIDE), interpolation=cv2.INTER_CUBIC)
        noisy = np.clip(scene + rng.normal(0, 3, scene.shape), 0, 255).astype(np.uint8)
        name = f"{number:04d}{suffix}"
        cv2.imwrite(str(folder / "images" / name), cv2.cvtColor(noisy, cv2.COLOR_RGB2BGR))
        images.append({"id": number + 1, "file_name": name, "width": SIDE, "height": SIDE})
        for x, y in rng.uniform(0, SIDE - 12, (BOXES, 2)).round(2).tolist():
            box = {
                "id": len(annotations) + 1,
                "image_id": number + 1,
                "category_id": 1,
                "bbox": [x, y, 12.0, 9.0],
            }
            annotations.append(box | {"area": 108.0, "iscrowd": 0})
    content = {
        "images": images,
        "annotations": annotations,
        "categories": [{"id": 1, "name": "thing"}],
    }
    (folder / "annotations/train.json").write_text(json.dumps(content))


FLIP_ONLY = Augmentation(flipud=0, rot90=0, zoom=0, hsv_h=0, hsv_s=0, hsv_v=0)
FLIP = v2.RandomHorizontalFlip(0.5)
ALIKE = (
    v2.RandomApply([v2.RandomResizedCrop((SIDE, SIDE), scale=(0.44, 1.0), ratio=(1.0, 1.0))], 0.5),
    *(FLIP, v2.RandomVerticalFlip(0.5), v2.ColorJitter(brightness=0.3, saturation=0.4, hue=0.015)),
)
WORK: dict[str, tuple[Augmentation | None, tuple[Any, ...]]] = {
    "plain": (None, ()),
    "flip": (FLIP_ONLY, (FLIP,)),
    "augmented, torchvision flips": (Augmentation(), (FLIP,)),
    "augmented, torchvision alike": (Augmentation(), ALIKE),
}


def ours(
    folder: Path, workers: int, augmentation: Augmentation | None
) -> Callable[[], Iterable[Any]]:
    index = load_index(load_data_spec(folder), "train", for_training=True)
    dataset = DetectionDataset(index, SIDE, augmentation)
    return lambda: build_loader(dataset, TrainSampler(len(dataset), BATCH), workers)


def reference(
    folder: Path, workers: int, augmentation: tuple[Any, ...]
) -> Callable[[], Iterable[Any]]:
    steps: list[Any] = [v2.ToImage(), *augmentation]
    steps += [v2.ToDtype(torch.float, scale=True), v2.SanitizeBoundingBoxes(), v2.ToPureTensor()]
    coco = CocoDetection(
        str(folder / "images"), str(folder / "annotations/train.json"), transforms=v2.Compose(steps)
    )
    dataset = wrap_dataset_for_transforms_v2(coco, target_keys=("boxes", "labels", "image_id"))
    options: dict[str, Any] = {"multiprocessing_context": "fork"} if workers else {}
    return lambda: DataLoader(
        dataset,
        BATCH,
        shuffle=True,
        num_workers=workers,
        collate_fn=lambda batch: tuple(zip(*batch, strict=True)),
        **options,
    )


def images_per_second(make: Callable[[], Iterable[Any]], count: int, workers: int) -> float:
    """One pass over the set after its first batch, by the clock, or by CPU time without workers.

    Processor time is what a loaded machine does not distort; with workers only the clock sees all
    processes.
    """
    batches = iter(make())
    next(batches)
    now = time.perf_counter if workers else time.process_time
    start = now()
    passes = sum(1 for _ in batches)
    return min(passes * BATCH, count) / (now() - start)


def measure(folder: Path, suffix: str, count: int, workers: int, repeats: int) -> None:
    for kind, (mine, theirs) in WORK.items():
        with contextlib.redirect_stdout(None):  # pycocotools talks
            makers = {
                "rfla": ours(folder, workers, mine),
                "torchvision": reference(folder, workers, theirs),
            }
        rates: dict[str, list[float]] = {name: [] for name in makers}
        for _ in range(repeats):
            for name, make in makers.items():
                rates[name].append(images_per_second(make, count, workers))
        middle = {name: statistics.median(values) for name, values in rates.items()}
        ratio = middle["rfla"] / middle["torchvision"]
        row = (
            suffix[1:],
            str(workers),
            kind,
            f"{middle['rfla']:.1f}",
            f"{middle['torchvision']:.1f}",
            f"{ratio:.2f}",
        )
        print("| " + " | ".join(row) + " |", flush=True)


def measure_index() -> None:
    """28,036 images and 752,754 boxes, the size of AI-TOD-v2."""
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        (root / "images").mkdir()
        (root / "annotations").mkdir()
        images = [
            {"id": n, "file_name": f"{n}.png", "width": SIDE, "height": SIDE} for n in range(28036)
        ]
        for entry in images:
            (root / "images" / str(entry["file_name"])).touch()
        corners = rng.uniform(0, 780, (752_754, 2)).round(2).tolist()
        owners = rng.integers(0, 28036, 752_754).tolist()
        annotations = [
            {
                "id": n,
                "image_id": owner,
                "bbox": [x, y, 12.5, 9.0],
                "category_id": n % 8 + 1,
                "area": 112.5,
                "iscrowd": 0,
            }
            for n, ((x, y), owner) in enumerate(zip(corners, owners, strict=True))
        ]
        categories = [{"id": n + 1, "name": str(n)} for n in range(8)]
        path = root / "annotations/train.json"
        path.write_text(
            json.dumps({"images": images, "annotations": annotations, "categories": categories})
        )
        del annotations, corners, owners
        spec, start, busy = load_data_spec(root), time.perf_counter(), time.process_time()
        index = load_index(spec, "train", for_training=True)
        wall, busy = time.perf_counter() - start, time.process_time() - busy
        arrays = [value for value in vars(index).values() if isinstance(value, np.ndarray)]
        size = sum(array.nbytes for array in arrays) / 1e6
        times = f"{wall:.1f} s by the clock, {busy:.1f} s of one core"
        print(
            f"{len(index):,} images, {len(index.boxes):,} boxes: {times}, {size:.0f} MB of arrays"
        )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=48)
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 2])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument(
        "--index", action="store_true", help="time the index of 28,036 images instead"
    )
    options = parser.parse_args()
    if options.index:
        measure_index()
        return
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
    print(
        "| format | workers | work | rfla images/s | torchvision images/s | ratio |\n"
        "|---|---|---|---|---|---|"
    )
    with tempfile.TemporaryDirectory() as name:
        for suffix in (".png", ".jpg"):
            folder = Path(name) / suffix[1:]
            write_set(folder, suffix, options.images)
            for workers in options.workers:
                measure(folder, suffix, options.images, workers, options.repeats)


if __name__ == "__main__":
    main()

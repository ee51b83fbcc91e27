"""Time the evaluation against pycocotools and faster-coco-eval, on one thread, in one process, and check the figures.

    python benchmarks/evaluation.py                 # the two densities, from memory and from a JSON file
    python benchmarks/evaluation.py --aitod-size    # 14,018 images, 350,000 boxes, 4 million detections, ours alone

Scenes are random: 8 classes as unevenly spread as in AI-TOD, boxes of about 12 px in 800 x 800 px, half of the
detections near a true box, one in ten with a wrong class. Every engine matches the same IoU thresholds (0.25 among
them), size ranges and limits, and must come to the same 15 figures; oLRP, which the others do not have, is timed apart.
"""

import argparse
import json
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from rfla.metrics import Detections, GroundTruth, Metrics, evaluate_boxes, find_protocol, study
from rfla.metrics.accumulate import Curves
from rfla.metrics.coco import Engine, gt_to_coco, run_reference
from rfla.metrics.coco_io import to_coco
from rfla.metrics.result import summarize

CLASS_SHARES = np.array([0.02, 0.02, 0.02, 0.05, 0.01, 0.80, 0.07, 0.01])
NAMES = ("airplane", "bridge", "storage-tank", "ship", "swimming-pool", "vehicle", "person", "wind-mill")


def make_scenes(images: int, boxes: int, detections: int, seed: int = 0) -> tuple[GroundTruth, Detections]:
    """Return random ground truth and detections, `boxes` and `detections` of each image."""
    rng = np.random.default_rng(seed)
    corner = rng.uniform(0, 800, (images * boxes, 2))
    sides = np.exp(rng.normal(2.5, 0.5, (images * boxes, 2))).clip(2, 120)
    truth = np.concatenate([corner, corner + sides], axis=1)
    labels = rng.choice(8, images * boxes, p=CLASS_SHARES)
    count = images * detections
    source = (rng.integers(0, boxes, (images, detections)) + np.arange(images)[:, None] * boxes).ravel()
    near = rng.random(count) < 0.5
    found = truth[source] + rng.normal(0, 0.15, (count, 4)) * np.tile(sides, 2)[source]
    found[~near] += np.tile(rng.uniform(-400, 400, (count, 2)), 2)[~near]
    found[:, 2:] = np.maximum(found[:, 2:], found[:, :2] + 1)
    scores = np.where(near, rng.beta(4, 3, count), rng.beta(1, 6, count))
    wrong = rng.random(count) < 0.1
    gt = GroundTruth(tuple(range(1, images + 1)), np.repeat(np.arange(images), boxes), truth, labels, names=NAMES)
    image_index = np.repeat(np.arange(images), detections)
    return gt, Detections(image_index, found, scores, np.where(wrong, rng.integers(0, 8, count), labels[source]))


def timed(work: Callable[[], Any]) -> tuple[Any, float]:
    start = time.perf_counter()
    return work(), time.perf_counter() - start


def assert_same(ours: Metrics, curves: Curves, gt: GroundTruth) -> None:
    theirs = summarize(curves, ours.protocol, gt)
    np.testing.assert_allclose(list(ours.figures.values()), list(theirs.figures.values()), rtol=0, atol=1e-12)


def compare_engines(images: int, boxes: int, detections: int) -> None:
    """Print one line for each engine, from memory, then from a JSON file."""
    protocol = find_protocol("aitod", lrp=False)
    gt, found = make_scenes(images, boxes, detections)
    truths, results = gt_to_coco(gt), to_coco(found, gt)
    print(f"\n{images} images, {boxes} boxes and {detections} detections an image")
    ours = min((timed(lambda: evaluate_boxes(gt, found, protocol)) for _ in range(3)), key=lambda run: run[1])
    with_lrp = min(timed(lambda: evaluate_boxes(gt, found))[1] for _ in range(3))
    print(f"  rfla, from memory          {ours[1]:8.2f} s   (with oLRP {with_lrp:.2f} s)")
    for engine in ("faster-coco-eval", "pycocotools"):
        curves, seconds = timed(lambda name=engine: run_reference(truths, results, gt, protocol, name))
        assert_same(ours[0], curves, gt)
        print(f"  {engine:26} {seconds:8.2f} s   {seconds / ours[1]:6.1f} times ours")
    from_files(gt, truths, results, protocol)


def from_files(gt: GroundTruth, truths: dict, results: list, protocol: Any) -> None:
    """The same from two JSON files, reading included on both sides."""
    with tempfile.TemporaryDirectory() as folder:
        gt_file, dt_file = Path(folder) / "gt.json", Path(folder) / "dt.json"
        gt_file.write_text(json.dumps(truths))
        dt_file.write_text(json.dumps(results))
        _, ours = timed(lambda: evaluate_boxes(gt_file, dt_file, protocol))
        print(f"  rfla, from JSON            {ours:8.2f} s")

        def read_and_run(engine: Engine) -> Curves:
            return run_reference(json.loads(gt_file.read_text()), json.loads(dt_file.read_text()), gt, protocol, engine)

        _, seconds = timed(lambda: read_and_run("pycocotools"))
        print(f"  pycocotools, from JSON     {seconds:8.2f} s   {seconds / ours:6.1f} times ours")


def aitod_size() -> None:
    """AI-TOD's test set in size: from memory, ours alone."""
    gt, found = make_scenes(14_018, 25, 285)
    print(f"{len(gt.image_ids)} images, {len(gt.labels)} boxes, {len(found)} detections; input made: {peak():.2f} GB")
    for name, work in (
        ("figures without oLRP", lambda: evaluate_boxes(gt, found, lrp=False)),
        ("figures", lambda: evaluate_boxes(gt, found)),
        ("figures and analyses", lambda: study(gt, found, find_protocol("aitod"))),
    ):
        _, seconds = timed(work)
        print(f"  {name:22} {seconds:6.1f} s   peak memory so far {peak():.2f} GB")


def peak() -> float:
    """Return the largest memory of this process up to now, in GB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--aitod-size", action="store_true")
    if parser.parse_args().aitod_size:
        aitod_size()
        return
    compare_engines(200, 50, 300)
    compare_engines(40, 250, 1000)


if __name__ == "__main__":
    main()

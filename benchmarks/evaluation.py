"""Time the evaluation against pycocotools and faster-coco-eval, on one thread, in one process, and check the figures.

    python benchmarks/evaluation.py                 # the two densities, from memory and from a JSON file
    python benchmarks/evaluation.py --aitod-size    # 14,018 images, 350,000 boxes, 4 million detections, ours alone

Scenes are random: 8 classes as unevenly spread as in AI-TOD, boxes of about 12 px in 800 x 800 px,
half of the detections near a true box, one in ten with a wrong class. Every engine matches the same
IoU thresholds (0.25 among them), size ranges and limits, and must come to the same 15 figures;
oLRP, which the others do not have, is timed apart.
"""

import argparse
import json
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from rfla.metrics import (
    Detections,
    GroundTruth,
    Metrics,
    Protocol,
    evaluate_boxes,
    find_protocol,
    study,
)
from rfla.metrics.accumulate import Curves
from rfla.metrics.detection_files import to_coco
from rfla.metrics.reference import gt_to_coco, run_reference
from rfla.metrics.result import summarize

CLASS_SHARES = np.array([0.02, 0.02, 0.02, 0.05, 0.01, 0.80, 0.07, 0.01])
NAMES = (
    "airplane",
    "bridge",
    "storage-tank",
    "ship",
    "swimming-pool",
    "vehicle",
    "person",
    "wind-mill",
)


def make_scenes(
    images: int, boxes: int, detections: int, seed: int = 0
) -> tuple[GroundTruth, Detections]:
    """Return random ground truth and detections, `boxes` and `detections` of each image."""
    rng = np.random.default_rng(seed)
    corner = rng.uniform(0, 800, (images * boxes, 2))
    sides = np.exp(rng.normal(2.5, 0.5, (images * boxes, 2))).clip(2, 120)
    truth = np.concatenate([corner, corner + sides], axis=1)
    labels = rng.choice(8, images * boxes, p=CLASS_SHARES)
    count = images * detections
    source = (
        rng.integers(0, boxes, (images, detections)) + np.arange(images)[:, None] * boxes
    ).ravel()
    near = rng.random(count) < 0.5
    found = truth[source] + rng.normal(0, 0.15, (count, 4)) * np.tile(sides, 2)[source]
    found[~near] += np.tile(rng.uniform(-400, 400, (count, 2)), 2)[~near]
    found[:, 2:] = np.maximum(found[:, 2:], found[:, :2] + 1)
    scores = np.where(near, rng.beta(4, 3, count), rng.beta(1, 6, count))
    wrong = rng.random(count) < 0.1
    gt = GroundTruth(
        tuple(range(1, images + 1)), np.repeat(np.arange(images), boxes), truth, labels, names=NAMES
    )
    image_index = np.repeat(np.arange(images), detections)
    return gt, Detections(
        image_index, found, scores, np.where(wrong, rng.integers(0, 8, count), labels[source])
    )


class Run(NamedTuple):
    """A result, and how long it took."""

    result: Any
    wall: float  # s
    cpu: float  # s of all threads; where the machine is shared, the better guide

    def __str__(self) -> str:
        return f"{self.wall:8.2f} s wall {self.cpu:8.2f} s CPU"

    def against(self, ours: "Run") -> str:
        """Return both times, and how many times ours they are."""
        return f"{self}   {self.wall / ours.wall:6.1f} and {self.cpu / ours.cpu:6.1f} times ours"


def timed(work: Callable[[], Any], repeats: int = 1) -> Run:
    """Run some work and return its quickest run."""
    runs = []
    for _ in range(repeats):
        wall, cpu = time.perf_counter(), time.process_time()
        result = work()
        runs.append(Run(result, time.perf_counter() - wall, time.process_time() - cpu))
    return min(runs, key=lambda run: run.wall)


def assert_same(ours: Metrics, curves: Curves, gt: GroundTruth) -> None:
    theirs = summarize(curves, ours.protocol, gt)
    np.testing.assert_allclose(
        list(ours.figures.values()), list(theirs.figures.values()), rtol=0, atol=1e-12
    )


def compare_engines(images: int, boxes: int, detections: int) -> None:
    """Print one line for each engine, from memory, then from a JSON file."""
    protocol = find_protocol("aitod", lrp=False)
    gt, found = make_scenes(images, boxes, detections)
    truths, results = gt_to_coco(gt), to_coco(found, gt)
    print(f"\n{images} images, {boxes} boxes and {detections} detections an image")
    ours = timed(lambda: evaluate_boxes(gt, found, protocol), repeats=3)
    print(f"  rfla, from memory      {ours}")
    print(f"  rfla, with oLRP        {timed(lambda: evaluate_boxes(gt, found), repeats=3)}")
    for engine in ("faster-coco-eval", "pycocotools"):
        theirs = timed(lambda name=engine: run_reference(truths, results, gt, protocol, name))
        assert_same(ours.result, theirs.result, gt)
        print(f"  {engine:22} {theirs.against(ours)}", flush=True)
    from_files(gt, truths, results, protocol)


def from_files(gt: GroundTruth, truths: dict, results: list, protocol: Protocol) -> None:
    """The same from two JSON files, reading included on both sides."""
    with tempfile.TemporaryDirectory() as folder:
        gt_file, dt_file = Path(folder) / "gt.json", Path(folder) / "dt.json"
        gt_file.write_text(json.dumps(truths))
        dt_file.write_text(json.dumps(results))
        ours = timed(lambda: evaluate_boxes(gt_file, dt_file, protocol))
        print(f"  rfla, from JSON        {ours}")

        def read_and_run() -> Curves:
            return run_reference(
                json.loads(gt_file.read_text()), json.loads(dt_file.read_text()), gt, protocol
            )

        print(f"  pycocotools, from JSON {timed(read_and_run).against(ours)}", flush=True)


def aitod_size() -> None:
    """AI-TOD's test set in size: from memory, ours alone."""
    gt, found = make_scenes(14_018, 25, 285)
    print(
        f"{len(gt.image_ids)} images, {len(gt.labels)} boxes, {len(found)} detections; input made: {peak():.2f} GB"
    )
    for name, work in (
        ("figures without oLRP", lambda: evaluate_boxes(gt, found, lrp=False)),
        ("figures", lambda: evaluate_boxes(gt, found)),
        ("figures and analyses", lambda: study(gt, found, find_protocol("aitod"))),
    ):
        print(f"  {name:22} {timed(work)}   peak memory so far {peak():.2f} GB", flush=True)


def peak() -> float:
    """Return the largest memory of this process up to now, in GB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--aitod-size", action="store_true")
    if parser.parse_args().aitod_size:
        aitod_size()
        return
    compare_engines(100, 50, 300)
    compare_engines(20, 250, 1000)


if __name__ == "__main__":
    main()

"""Time the evaluation against other engines: one thread, one process, and all figures equal.

    python benchmarks/evaluation.py                 # two densities, from memory and from files
    python benchmarks/evaluation.py --files         # two densities, from files alone, in pairs
    python benchmarks/evaluation.py --aitod-size    # 14,018 images, ours alone

Scenes are random: 8 classes as unevenly spread as in AI-TOD, boxes of about 12 px in 800 x 800 px,
half of the detections near a true box, one in ten with a wrong class. Every engine matches the same
IoU thresholds (0.25 among them), size ranges and limits, and must come to the same 15 figures;
oLRP, which the others do not have, is timed apart. An engine that is not installed is left out,
with a line that says so: pip install faster-coco-eval ultrafast-pycocotools hotcoco.
"""

import argparse
import contextlib
import importlib
import importlib.util
import io
import json
import os
import resource
import statistics
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


ENGINES = {
    "ultrafast-pycocotools": ("ultrafast_pycocotools", "COCO", "COCOeval"),
    "hotcoco": ("hotcoco", "COCO", "COCOeval"),
    "faster-coco-eval": ("faster_coco_eval", "COCO", "COCOeval_faster"),
}
"""Engines with the interface of pycocotools: module, data set class, evaluation class."""


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
    """Print one line for each engine, from memory."""
    protocol = find_protocol("aitod", lrp=False)
    gt, found = make_scenes(images, boxes, detections)
    truths, results = gt_to_coco(gt), to_coco(found, gt)
    print(f"\n{images} images, {boxes} boxes and {detections} detections an image, from memory")
    ours = timed(lambda: evaluate_boxes(gt, found, protocol), repeats=3)
    print(f"  rfla                   {ours}")
    print(f"  rfla, with oLRP        {timed(lambda: evaluate_boxes(gt, found), repeats=3)}")
    for engine in ("faster-coco-eval", "pycocotools"):
        theirs = timed(lambda name=engine: run_reference(truths, results, gt, protocol, name))
        assert_same(ours.result, theirs.result, gt)
        print(f"  {engine:22} {theirs.against(ours)}", flush=True)


def compare_from_files(images: int, boxes: int, detections: int, rounds: int = 15) -> None:
    """Print one line for each engine, reading two JSON files included.

    The engines take turns, so that a busy machine is busy for all of them.
    """
    protocol = find_protocol("aitod", lrp=False)
    gt, found = make_scenes(images, boxes, detections)
    with tempfile.TemporaryDirectory() as folder:
        files = Path(folder) / "gt.json", Path(folder) / "dt.json"
        files[0].write_text(json.dumps(gt_to_coco(gt)))
        files[1].write_text(json.dumps(to_coco(found, gt)))
        size = files[1].stat().st_size / 1e6
        print(
            f"\n{images} images, {boxes} boxes and {detections} detections an image, from files; "
            f"{size:.1f} MB of detections, {rounds} rounds"
        )
        works: dict[str, Callable[[], Any]] = {
            "rfla": lambda: evaluate_boxes(*files, protocol),
            "rfla, with oLRP": lambda: evaluate_boxes(*files),
        }
        for name, parts in ENGINES.items():
            if importlib.util.find_spec(parts[0]) is None:
                print(f"  {name:22} not installed")
            else:
                works[name] = lambda parts=parts: run_engine(parts, *files, protocol)
        runs = {name: [timed(work)] for name, work in works.items()}
        for name in list(works)[2:]:
            assert_same(runs["rfla"][0].result, in_label_order(runs[name][0].result, gt), gt)
        for _ in range(rounds):
            for name, work in works.items():
                runs[name].append(timed(work))
    for name, of_engine in runs.items():
        print(f"  {name:22} {summary(of_engine[1:], runs['rfla'][1:])}", flush=True)


def summary(runs: list[Run], ours: list[Run]) -> str:
    """Return the quickest and the middle CPU time, and how many times ours they are."""
    times, own = [run.cpu for run in runs], [run.cpu for run in ours]
    paired = [a / b for a, b in zip(times, own, strict=True)]
    return (
        f"CPU min {min(times):.3f} s, median {statistics.median(times):.3f} s; times ours: "
        f"min {min(times) / min(own):.2f}, median of pairs {statistics.median(paired):.2f}"
    )


def run_engine(parts: tuple[str, str, str], gt: Path, dt: Path, protocol: Protocol) -> Any:
    """Read two files and evaluate, with an engine that has the interface of pycocotools."""
    module = importlib.import_module(parts[0])
    with contextlib.redirect_stdout(io.StringIO()):
        truths = getattr(module, parts[1])(str(gt))
        evaluation = getattr(module, parts[2])(truths, truths.loadRes(str(dt)), "bbox")
        evaluation.params.iouThrs = np.array(protocol.thresholds)
        evaluation.params.areaRng = [list(bounds) for bounds in protocol.area_ranges]
        evaluation.params.areaRngLbl = list(protocol.size_names)
        evaluation.params.maxDets = list(protocol.max_dets)
        evaluation.evaluate()
        evaluation.accumulate()
    return evaluation.eval


def in_label_order(result: Any, gt: GroundTruth) -> Curves:
    """Return the curves of an engine, which sorts by category id, without oLRP."""
    precision = np.asarray(result["precision"])[..., -1][:, :, gt.class_rank]
    recall = np.asarray(result["recall"])[:, gt.class_rank]
    lrp = np.full((*recall.shape[1:], 5), -1.0)
    return Curves(precision, recall, lrp, np.zeros(recall.shape[1:3]))


def aitod_size() -> None:
    """AI-TOD's test set in size: from memory, ours alone."""
    gt, found = make_scenes(14_018, 25, 285)
    print(
        f"{len(gt.image_ids)} images, {len(gt.labels)} boxes, {len(found)} detections; "
        f"input made: {peak():.2f} GB"
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
    parser.add_argument("--files", action="store_true")
    given = parser.parse_args()
    os.environ.setdefault("RAYON_NUM_THREADS", "1")  # of the engines in Rust
    if given.aitod_size:
        aitod_size()
        return
    if not given.files:
        compare_engines(100, 50, 300)
        compare_engines(20, 250, 1000)
    compare_from_files(200, 50, 300)
    compare_from_files(20, 250, 1000)


if __name__ == "__main__":
    main()

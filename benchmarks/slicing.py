"""Slices of large images beside SAHI and supervision: time, memory, and what seams cost in AP.

    python benchmarks/slicing.py --time            # one network, one scene, three slicers in turn
    python benchmarks/slicing.py --ap SCENES       # merging rules, on boxes of a detector that errs

SCENES is a directory with `images/` and `annotations/all.json` (COCO). A slicer that is not
installed is left out: pip install sahi supervision (in an environment of their own).

Times are of one thread's processor, so that a busy machine does not decide. The detector of --ap
is no network: a picture whose colours count its pixels tells it where a slice lies, and it reports
what the slice shows, cut, with sides that jitter and scores that do not know of seams.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from slicers import Array, Detect, Found, by_sahi, by_supervision, is_installed

from rfla import RFLA
from rfla.cfg import load_config
from rfla.engine.model_source import load_trained, weights_metadata
from rfla.metrics import Detections, GroundTruth, evaluate_boxes
from rfla.models import build_detector
from rfla.models.weights import save_weights
from rfla.predict import merge_tiles, plan_tiles
from rfla.predict.options import PredictOptions
from rfla.predict.predictor import Predictor
from rfla.predict.source_image import SourceImage

# ---------------------------------------------------------------------- time


def random_network(folder: Path) -> str:
    """Write weights of a small FCOS whose scores spread, and return their path."""
    torch.manual_seed(0)
    settings = {"backbone.name": "resnet18", "neck.width": 32, "head.width": 32, "head.depth": 1}
    net = build_detector("fcos_p2", num_classes=1, settings=settings)
    path = folder / "net.safetensors"
    save_weights(path, net.state_dict(), weights_metadata(net.config, ("a",), 320, {}, {}))
    return str(path)


class TimedNetwork:
    """A network that counts the seconds of the processor that it takes."""

    def __init__(self, inference: Any) -> None:
        self.inference, self.seconds = inference, 0.0

    def __call__(self, *given: Any) -> Any:
        """Run the network."""
        started = time.process_time()
        outputs = self.inference(*given)
        self.seconds += time.process_time() - started
        return outputs


def time_slicers(repeats: int) -> None:
    """Run one scene of 700 x 700 px through one network by three slicers, in turn."""
    torch.set_num_threads(1)
    side, overlap = 320, 0.2
    picture = noise(700)
    with tempfile.TemporaryDirectory() as folder:
        path = random_network(Path(folder))
        given = {"model": path, "source": "x", "slice": side, "overlap": overlap, "imgsz": side}
        given |= {"conf": 0.0, "max_det": 300, "device": "cpu", "batch": 8}
        cfg = load_config(given, mode="predict")
        model = load_trained(path, cfg)
    predictor = Predictor(model, torch.device("cpu"))
    network = TimedNetwork(predictor.inference)
    predictor.inference = network  # type: ignore[assignment]
    sliced = PredictOptions.from_config(cfg, model)
    whole = PredictOptions(side, max_det=300)

    def run(pixels: Array, options: PredictOptions) -> Found:
        image = SourceImage("scene", Path("scene.png"), np.ascontiguousarray(pixels))
        (result,) = predictor.stream([image], options)
        return result.boxes.xyxy, result.boxes.conf, result.boxes.cls

    def detect(crop: Array) -> Found:
        return run(crop, whole)

    runs: dict[str, Callable[[], Any]] = {"rfla": lambda: run(picture, sliced)}
    if is_installed("sahi"):
        alone = {"perform_standard_pred": False}
        runs["sahi"] = lambda: by_sahi(picture, detect, side, overlap)
        runs["sahi, slices alone"] = lambda: by_sahi(picture, detect, side, overlap, **alone)
    if is_installed("supervision"):
        runs["supervision"] = lambda: by_supervision(picture, detect, side, overlap)
    _in_turn(runs, network, repeats)


def _in_turn(runs: dict[str, Callable[[], Any]], network: TimedNetwork, repeats: int) -> None:
    """Time each after a first pass, and print the medians."""
    spent: dict[str, list[tuple[float, float]]] = {name: [] for name in runs}
    for number in range(repeats + 1):
        for name, work in runs.items():
            network.seconds, started = 0.0, time.process_time()
            boxes = work()[0]
            total = time.process_time() - started
            if number:
                spent[name].append((total, total - network.seconds))
            else:
                print(f"{name}: {len(boxes)} boxes")
    medians = {
        name: tuple(statistics.median(column) for column in zip(*rows, strict=True))
        for name, rows in spent.items()
    }
    for name, (total, beside) in medians.items():
        print(
            f"{name}: {total:.2f} s, of which {beside:.3f} s beside the network, "
            f"{total / medians['rfla'][0]:.2f} and {beside / medians['rfla'][1]:.1f} times rfla"
        )


def noise(side: int) -> Array:
    """Return a picture of blurred noise."""
    pixels = np.random.default_rng(0).integers(0, 255, (side, side, 3), np.uint8)
    return np.asarray(cv2.GaussianBlur(pixels, (0, 0), 3))


def time_calls() -> None:
    """Time the first and the second call of `RFLA.predict` on an image of 320 px."""
    with tempfile.TemporaryDirectory() as folder:
        model, picture = RFLA(random_network(Path(folder))), noise(320)
        for call in ("first", "second", "third"):
            started = time.process_time()
            model.predict(picture, device="cpu", conf=0.0, max_det=300)
            print(f"{call} call: {time.process_time() - started:.2f} s")


# ---------------------------------------------------------------------- AP


class ErringDetector:
    """Reports the objects of a scene that a slice shows, cut to it, with jitter.

    Args:
        boxes: (G, 4) of the scene, px.
        width: Of the scene, px.
        jitter: Standard deviation of all sides, px.
        missed: Share of the objects that a slice does not find.
        seed: Of the errors.
    """

    def __init__(self, boxes: Array, width: int, jitter: float, missed: float, seed: int):
        self.boxes, self.width, self.jitter, self.missed = boxes, width, jitter, missed
        self.rng = np.random.default_rng(seed)

    @staticmethod
    def picture(height: int, width: int) -> Array:
        """Return a picture whose colours count its pixels."""
        number = np.arange(height * width).reshape(height, width)
        return np.stack([number >> 16, number >> 8 & 255, number & 255], -1).astype(np.uint8)

    def __call__(self, crop: Array) -> Found:
        """Return boxes, scores and labels in px of the slice."""
        high, middle, low = (int(value) for value in crop[0, 0])
        y, x = divmod(high << 16 | middle << 8 | low, self.width)
        end = [x + crop.shape[1], y + crop.shape[0]]
        shown = np.concatenate(
            [np.maximum(self.boxes[:, :2], [x, y]), np.minimum(self.boxes[:, 2:], end)], 1
        )
        seen = ((shown[:, 2:] - shown[:, :2]) >= 2).all(axis=1)
        seen &= self.rng.random(len(shown)) >= self.missed
        shown = shown[seen] + self.rng.normal(0, self.jitter, (int(seen.sum()), 4))
        shown[:, 2:] = np.maximum(shown[:, 2:], shown[:, :2] + 1)
        shown = np.clip(shown - [x, y, x, y], 0, [crop.shape[1], crop.shape[0]] * 2)
        scores = self.rng.uniform(0.3, 1.0, len(shown))
        return shown, scores, np.zeros(len(shown), np.int64)


def slicers() -> dict[str, Callable[[Array, Detect, int, float], Found]]:
    """The rules that are compared, by name."""

    def ours(rule: str) -> Callable[[Array, Detect, int, float], Found]:
        def run(picture: Array, detect: Detect, side: int, overlap: float) -> Found:
            height, width = picture.shape[:2]
            tiles = plan_tiles(height, width, side, round(side * overlap))
            found = [detect(picture[y1:y2, x1:x2]) for x1, y1, x2, y2 in tiles.tolist()]
            return merge_tiles(found, tiles, (height, width), merge=rule)  # type: ignore[arg-type]

        return run

    def sahi(kind: str, metric: str) -> Callable[[Array, Detect, int, float], Found]:
        how = {"postprocess_type": kind, "postprocess_match_metric": metric}
        alone = {"perform_standard_pred": False, "auto_slice_resolution": False}
        return lambda *given: by_sahi(*given, **how, **alone)

    rules = {"rfla seam": ours("seam"), "rfla nms": ours("nms")}
    if is_installed("sahi"):
        rules["sahi GREEDYNMM IOS (default)"] = sahi("GREEDYNMM", "IOS")
        rules["sahi NMS IOU"] = sahi("NMS", "IOU")
        rules["sahi NMS IOS"] = sahi("NMS", "IOS")
    if is_installed("supervision"):
        rules["supervision NMS IOU (default)"] = by_supervision
    return rules


def compare_ap(scenes: Path, repeats: int) -> None:
    """Judge the merged boxes of each rule by the boxes of the scenes, AI-TOD's protocol."""
    document = json.loads((scenes / "annotations" / "all.json").read_text())
    for jitter, missed in ((0.0, 0.0), (0.5, 0.0), (0.5, 0.1), (1.0, 0.1)):
        print(f"jitter {jitter} px, {missed:.0%} missed: AP, AP50, boxes of objects")
        for name, slicer in slicers().items():
            figures = []
            for seed in range(repeats):
                figures.append(_judge(document, slicer, jitter, missed, seed))
            ap, ap50, boxes, objects = np.mean(figures, axis=0)
            print(f"  {name}: {ap:.4f}, {ap50:.4f}, {boxes:.0f} of {objects:.0f}")


def _judge(
    document: dict[str, Any], slicer: Any, jitter: float, missed: float, seed: int
) -> tuple[float, float, int, int]:
    truths, found = [], []
    for place, image in enumerate(document["images"]):
        xywh = [row["bbox"] for row in document["annotations"] if row["image_id"] == image["id"]]
        boxes = np.array(xywh, float).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        truths.append((np.full(len(boxes), place), boxes))
        height, width = image["height"], image["width"]
        detector = ErringDetector(boxes, width, jitter, missed, seed)
        side = 64 if max(height, width) <= 128 else 128
        merged = slicer(detector.picture(height, width), detector, side, 0.3)
        found.append((np.full(len(merged[1]), place), *merged))
    gt = GroundTruth(
        image_ids=tuple(range(len(truths))),
        image_index=np.concatenate([place for place, _ in truths]),
        boxes=np.concatenate([boxes for _, boxes in truths]),
        labels=np.zeros(sum(len(boxes) for _, boxes in truths), np.int64),
        names=("tree",),
    )
    places, boxes, scores, labels = (np.concatenate(column) for column in zip(*found, strict=True))
    detections = Detections(places, boxes.astype(float), scores.astype(float), labels)
    metrics = evaluate_boxes(gt, detections, protocol="aitod")
    return metrics.ap, metrics.ap50, len(scores), len(gt.labels)


def main() -> None:
    """Run what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--time", action="store_true")
    parser.add_argument("--ap", type=Path, metavar="SCENES")
    parser.add_argument("--repeats", type=int, default=3)
    given = parser.parse_args()
    if given.time:
        time_slicers(given.repeats)
        time_calls()
    if given.ap:
        compare_ap(given.ap, given.repeats)


if __name__ == "__main__":
    main()

"""What seams cost in AP, by the rule that merges the boxes of slices.

    python benchmarks/seams.py SCENES                              # a detector that errs
    python benchmarks/seams.py SCENES --model best.safetensors     # a trained network

SCENES is a directory with `images/` and `annotations/all.json` (COCO). A slicer that is not
installed is left out: pip install sahi supervision (in an environment of their own).

All rules get the same boxes of the same slices. The detector that errs is no network: a picture
whose colours count its pixels tells it where a slice lies, and it reports what the slice shows,
cut, with sides that jitter and scores that do not know of seams.
"""

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from slicers import Array, Detect, Found, by_sahi, by_supervision, is_installed

from rfla import RFLA
from rfla.data.images import read_image
from rfla.metrics import Detections, GroundTruth, Metrics, evaluate_boxes
from rfla.predict import merge_tiles, plan_tiles

OVERLAP = 0.3
CONFS = (0.1, 0.25)  # lowest scores
SIDES = (96, 128, 160)  # px of the slices for a network; of scenes of 100 px a half

Slicer = Callable[[Array, Detect, int, float], Found]
Given = tuple[Array, Detect]  # a picture, and what detects in its slices


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


class NetworkDetector:
    """A trained network; looks at each slice once, at its own size, whoever asks for it."""

    def __init__(self, model: str) -> None:
        self.model, self.known, self.conf = RFLA(model), dict[bytes, Found](), min(CONFS)

    def __call__(self, crop: Array) -> Found:
        """Return boxes, scores and labels in px of the slice."""
        key = crop.tobytes()
        if key not in self.known:
            settings: dict[str, Any] = {"conf": min(CONFS), "max_det": 1500, "device": "cpu"}
            (result,) = self.model.predict(crop, imgsz=max(crop.shape[:2]), **settings)
            self.known[key] = result.boxes.xyxy, result.boxes.conf, result.boxes.cls
        boxes, scores, labels = self.known[key]
        sure = scores >= self.conf
        return boxes[sure], scores[sure], labels[sure]


def slicers() -> dict[str, Slicer]:
    """The rules that are compared, by name."""

    def ours(rule: str) -> Slicer:
        def run(picture: Array, detect: Detect, side: int, overlap: float) -> Found:
            height, width = picture.shape[:2]
            tiles = plan_tiles(height, width, side, int(side * overlap))
            found = [detect(picture[y1:y2, x1:x2]) for x1, y1, x2, y2 in tiles.tolist()]
            return merge_tiles(found, tiles, (height, width), merge=rule)  # type: ignore[arg-type]

        return run

    def sahi(kind: str, metric: str) -> Slicer:
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


def truth_of(document: dict[str, Any]) -> list[Array]:
    """Return (G, 4) boxes of each image, px."""
    truths = []
    for image in document["images"]:
        xywh = [row["bbox"] for row in document["annotations"] if row["image_id"] == image["id"]]
        boxes = np.array(xywh, float).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        truths.append(boxes)
    return truths


def judge(slicer: Slicer, given: list[Given], truths: list[Array], side: int) -> Metrics:
    """Judge the merged boxes of a rule by the boxes of the scenes, AI-TOD's protocol."""
    found = []
    for place, (picture, detect) in enumerate(given):
        small = side if max(picture.shape[:2]) > side else side // 2
        merged = slicer(picture, detect, small, OVERLAP)
        found.append((np.full(len(merged[1]), place), *merged))
    places = [np.full(len(boxes), place) for place, boxes in enumerate(truths)]
    labels = np.zeros(sum(map(len, truths)), np.int64)
    index = tuple(range(len(truths)))
    gt = GroundTruth(index, np.concatenate(places), np.concatenate(truths), labels, names=("tree",))
    place, boxes, scores, classes = (np.concatenate(column) for column in zip(*found, strict=True))
    detections = Detections(place, boxes.astype(float), scores.astype(float), classes)
    return evaluate_boxes(gt, detections, protocol="aitod")


def compare(scenes: Path, repeats: int) -> None:
    """Compare the rules on boxes of the detector that errs, the mean of some seeds."""
    document = json.loads((scenes / "annotations" / "all.json").read_text())
    truths = truth_of(document)
    for jitter, missed in ((0.0, 0.0), (0.5, 0.0), (0.5, 0.1), (1.0, 0.1)):
        print(f"jitter {jitter} px, {missed:.0%} missed: AP, AP50")
        for name, slicer in slicers().items():
            figures = []
            for seed in range(repeats):
                given: list[Given] = [
                    (
                        ErringDetector.picture(image["height"], image["width"]),
                        ErringDetector(boxes, image["width"], jitter, missed, seed),
                    )
                    for image, boxes in zip(document["images"], truths, strict=True)
                ]
                metrics = judge(slicer, given, truths, 128)
                figures.append((metrics.ap, metrics.ap50))
            print(f"  {name}: {', '.join(f'{figure:.4f}' for figure in np.mean(figures, axis=0))}")


def compare_network(scenes: Path, model: str) -> None:
    """Compare the rules on boxes of a network."""
    torch.set_num_threads(1)
    document = json.loads((scenes / "annotations" / "all.json").read_text())
    truths, detector = truth_of(document), NetworkDetector(model)
    given: list[Given] = [
        (read_image(scenes / "images" / image["file_name"]), detector)
        for image in document["images"]
    ]
    for detector.conf in CONFS:
        for side in SIDES:
            print(f"scores from {detector.conf}, slices of {side} px: AP, AP50, AR", flush=True)
            for name, slicer in slicers().items():
                metrics = judge(slicer, given, truths, side)
                print(f"  {name}: {metrics.ap:.4f}, {metrics.ap50:.4f}, {metrics.ar_1500:.4f}")


def main() -> None:
    """Run what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("scenes", type=Path)
    parser.add_argument("--model", help="weights of a network; left out: the detector that errs")
    parser.add_argument("--repeats", type=int, default=3, help="seeds of the detector that errs")
    given = parser.parse_args()
    if given.model:
        compare_network(given.scenes, given.model)
    else:
        compare(given.scenes, given.repeats)


if __name__ == "__main__":
    main()

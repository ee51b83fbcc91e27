"""Slices of large images beside SAHI and supervision: time, memory, and what seams cost in AP.

    python benchmarks/slicing.py --time            # one network, one scene, three slicers in turn
    python benchmarks/slicing.py --ap SCENES       # merging rules, on boxes of a detector that errs
    python benchmarks/slicing.py --merge           # seconds by number of boxes
    python benchmarks/slicing.py --memory          # scenes of 10,000, 20,000 and 40,000 rows

SCENES is a directory with `images/` and `annotations/all.json` (COCO). A slicer that is not
installed is left out: pip install sahi supervision (in an environment of their own).

Times are of one thread's processor, so that a busy machine does not decide. The detector of --ap
is no network: a picture whose colours count its pixels tells it where a slice lies, and it reports
what the slice shows, cut, with sides that jitter and scores that do not know of seams.
"""

import argparse
import importlib.util
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from rfla import RFLA
from rfla.cfg import load_config
from rfla.engine.model_source import SourceModel, load_trained, weights_metadata
from rfla.metrics import Detections, GroundTruth, evaluate_boxes
from rfla.models import build_detector
from rfla.models.weights import save_weights
from rfla.predict import merge_tiles, plan_tiles
from rfla.predict.options import PredictOptions
from rfla.predict.predictor import Predictor
from rfla.predict.source_image import SourceImage

# Boxes that a slicer merges within a minute.
MOST_BOXES = {"rfla": 10**9, "sahi": 50_000, "supervision": 5_000}

Array = np.ndarray
Found = tuple[Array, Array, Array]  # boxes (n, 4) xyxy px, scores (n,), labels (n,)
Detect = Callable[[Array], Found]


def is_installed(library: str) -> bool:
    if importlib.util.find_spec(library) is None:
        print(f"{library} is not installed and left out")
        return False
    return True


# ---------------------------------------------------------------------- the other slicers


def by_sahi(picture: Array, detect: Detect, side: int, overlap: float, **how: Any) -> Found:
    """Slice, detect and merge with SAHI: its own defaults but for what is given."""
    from sahi.models.base import DetectionModel
    from sahi.predict import get_sliced_prediction
    from sahi.prediction import ObjectPrediction

    class Model(DetectionModel):
        def load_model(self) -> None:
            self.model = detect

        def check_dependencies(self, *_: Any) -> None:
            pass

        def perform_inference(self, image: Array) -> None:
            self._original_predictions = detect(image)

        def _create_object_prediction_list_from_original_predictions(
            self, shift_amount_list: Any = None, full_shape_list: Any = None
        ) -> None:
            shift = shift_amount_list or [0, 0]
            shift = shift[0] if isinstance(shift[0], list | tuple) else shift
            shape = full_shape_list
            shape = shape[0] if shape and isinstance(shape[0], list | tuple) else shape
            self._object_prediction_list_per_image = [
                [
                    ObjectPrediction(
                        bbox=box,
                        category_id=label,
                        category_name=str(label),
                        score=score,
                        shift_amount=shift,
                        full_shape=shape,
                    )
                    for box, score, label in zip(
                        *(part.tolist() for part in self._original_predictions), strict=True
                    )
                ]
            ]

    model = Model(device="cpu", confidence_threshold=0.0, category_mapping={"0": "0"})
    result = get_sliced_prediction(
        picture,
        model,
        slice_height=side,
        slice_width=side,
        overlap_height_ratio=overlap,
        overlap_width_ratio=overlap,
        verbose=0,
        force_postprocess_type=True,
        **how,
    )
    every = result.object_prediction_list
    boxes = np.array([one.bbox.to_xyxy() for one in every]).reshape(-1, 4)
    labels = np.array([one.category.id for one in every], np.int64)
    return boxes, np.array([one.score.value for one in every]), labels


def by_supervision(picture: Array, detect: Detect, side: int, overlap: float, **how: Any) -> Found:
    """Slice, detect and merge with supervision's InferenceSlicer."""
    import supervision

    def call(crop: Array) -> Any:
        boxes, scores, labels = detect(crop)
        return supervision.Detections(xyxy=boxes, confidence=scores, class_id=labels)

    shared = round(side * overlap)
    slicer = supervision.InferenceSlicer(call, slice_wh=side, overlap_wh=shared, **how)
    found = slicer(picture)
    if not len(found):
        return np.zeros((0, 4)), np.zeros(0), np.zeros(0, np.int64)
    return found.xyxy, found.confidence, found.class_id


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


# ---------------------------------------------------------------------- merging


def painted_scene(count: int) -> tuple[list[Found], Array, tuple[int, int]]:
    """Return what slices of 800 px show of `count` objects of 3 to 30 px, 200,000 on 20,000 px."""
    rng = np.random.default_rng(0)
    length = max(round((count / 200_000) ** 0.5 * 20_000), 1000)
    tiles = plan_tiles(length, length, 800, 160)
    corner = rng.random((count, 2)) * (length - 30)
    boxes = np.concatenate([corner, corner + rng.integers(3, 31, (count, 2))], axis=1)
    order = np.argsort(boxes[:, 1])
    boxes, tops = boxes[order], boxes[order][:, 1]
    found = []
    for x1, y1, x2, y2 in tiles.astype(float):
        row = boxes[np.searchsorted(tops, y1 - 31) : np.searchsorted(tops, y2)]
        shown = np.clip(row, [x1, y1, x1, y1], [x2, y2, x2, y2])
        shown = shown[((shown[:, 2:] - shown[:, :2]) > 0).all(axis=1)] - [x1, y1, x1, y1]
        found.append((shown, rng.random(len(shown)), np.zeros(len(shown), np.int64)))
    return found, tiles, (length, length)


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


def write_scene(path: Path, rows: int, columns: int) -> None:
    """Write a compressed tiled GeoTIFF by windows."""
    import rasterio
    from rasterio.windows import Window

    block = (
        np.random.default_rng(0).integers(0, 255, (3, 64, 64), np.uint8).repeat(8, 1).repeat(8, 2)
    )
    kind = {"driver": "GTiff", "dtype": "uint8", "count": 3, "photometric": "RGB", "tiled": True}
    kind |= {"compress": "deflate", "blockxsize": 512, "blockysize": 512, "zlevel": 1}
    with rasterio.open(path, "w", height=rows, width=columns, **kind) as file:
        for y in range(0, rows, 512):
            for x in range(0, columns, 512):
                high, wide = min(512, rows - y), min(512, columns - x)
                file.write(block[:, :high, :wide], window=Window(x, y, wide, high))


class NoNetwork:
    """Takes batches as a network does and reports 160 boxes in each slice."""

    def __init__(self) -> None:
        self.rng = np.random.default_rng(0)

    def __call__(
        self, images: Any, sizes: Any, scales: Any, original_sizes: Any, speed: Any
    ) -> list[dict[str, torch.Tensor]]:
        """Return boxes of 3 to 30 px."""
        speed.images += len(original_sizes)
        outputs = []
        for height, width in original_sizes:
            corner = self.rng.random((160, 2)) * [width - 30, height - 30]
            boxes = np.concatenate([corner, corner + self.rng.integers(3, 31, (160, 2))], axis=1)
            scores = torch.from_numpy(np.sort(self.rng.random(160))[::-1].copy()).float()
            labels = torch.zeros(160, dtype=torch.int64)
            outputs.append(
                {"boxes": torch.from_numpy(boxes).float(), "scores": scores, "labels": labels}
            )
        return outputs


def one_scene(path: Path) -> None:
    """Predict a scene by windows without a network, and print the peak of memory, MB."""
    config = build_detector("fcos_p2", num_classes=1, settings={"backbone.name": "resnet18"})
    predictor = Predictor(SourceModel(config, config.config, ("a",)), torch.device("cpu"))
    predictor.inference = NoNetwork()  # type: ignore[assignment]
    from rfla.predict.slices import Slices

    options = PredictOptions(800, batch=4, slices=Slices(800, 160))
    base = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started = time.perf_counter()
    (result,) = predictor.stream([SourceImage(str(path), Path(path.name))], options)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    height, width = result.orig_shape
    print(
        f"{height} rows x {width} px: {len(result)} boxes, {(peak - base) / 1024:.0f} MB above "
        f"{base / 1024:.0f} MB with torch and the model, {time.perf_counter() - started:.0f} s"
    )


def measure_memory(columns: int) -> None:
    """Predict scenes of growing height, each in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        for rows in (10_000, 20_000, 40_000):
            path = Path(folder) / "scene.tif"
            write_scene(path, rows, columns)
            subprocess.run([sys.executable, __file__, "--scene", str(path)], check=True)


def main() -> None:
    """Run what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--time", action="store_true")
    parser.add_argument("--ap", type=Path, metavar="SCENES")
    parser.add_argument("--merge", action="store_true")
    parser.add_argument("--memory", action="store_true")
    parser.add_argument("--scene", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--repeats", type=int, default=3)
    given = parser.parse_args()
    if given.time:
        time_slicers(given.repeats)
        time_calls()
    if given.ap:
        compare_ap(given.ap, given.repeats)
    if given.merge:
        time_merging()
    if given.memory:
        measure_memory(20_000)
    if given.scene:
        one_scene(given.scene)


if __name__ == "__main__":
    main()

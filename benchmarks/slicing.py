"""Slices of large images beside SAHI and supervision: seconds.

    python benchmarks/slicing.py                   # one network, one scene, three slicers in turn
    python benchmarks/slicing.py --model best.safetensors --picture scene.jpg [--device cuda]

A slicer that is not installed is left out: pip install sahi supervision (in an environment of
their own). Seconds are of one thread's processor, so that a busy machine does not decide; on a GPU
of the clock. SAHI and supervision run the network as torch loads it, and, in rows of their own, in
the form in which `rfla predict` runs it on a CPU.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import cv2
import numpy as np
import torch
from slicers import Array, Found, by_sahi, by_supervision, is_installed

from rfla import RFLA
from rfla.cfg import load_config, model_part
from rfla.data.images import read_image
from rfla.engine.device import select_device
from rfla.engine.model_source import load_trained, weights_metadata
from rfla.models import build_detector
from rfla.models.weights import save_weights
from rfla.predict.model import load_model
from rfla.predict.options import PredictOptions
from rfla.predict.predictor import Predictor
from rfla.predict.source_image import SourceImage

SIDE, SHARE = 320, 0.2  # px of a slice, and SAHI's overlap

Runs = dict[str, Callable[[], Found]]

# ---------------------------------------------------------------------- time


def random_network(folder: Path) -> str:
    """Write weights of a small FCOS whose scores spread, and return their path."""
    torch.manual_seed(0)
    settings = {"backbone.name": "resnet18", "neck.width": 32, "head.width": 32, "head.depth": 1}
    net = build_detector("fcos_p2", num_classes=1, settings=settings)
    path = folder / "net.safetensors"
    save_weights(path, net.state_dict(), weights_metadata(net.config, ("a",), 320, {}, {}))
    return str(path)


class Timer:
    """Counts the seconds that networks take."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.clock, self.seconds = clock, 0.0

    def timed(self, predictor: Predictor) -> Predictor:
        """Let the calls of a predictor's network count."""
        predictor.inference = Timed(predictor.inference, self)  # type: ignore[assignment]
        return predictor


class Timed:
    """A network whose calls are timed; all else is the network's own."""

    def __init__(self, inference: Any, timer: Timer) -> None:
        self.inference, self.timer = inference, timer

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inference, name)

    def __call__(self, *given: Any) -> Any:
        """Call the network."""
        started = self.timer.clock()
        outputs = self.inference(*given)
        self.timer.seconds += self.timer.clock() - started
        return outputs


def time_slicers(given: argparse.Namespace) -> None:
    """Run one scene through one network by three slicers, in turn.

    Defaults beside defaults: SAHI's overlap of 0.2 and its pass over the whole image, rfla's
    overlap by the objects of the training. Then the same slices for all.
    """
    torch.set_num_threads(1)
    picture = repeated(given.picture, 4) if given.picture else noise(700)
    device = select_device(given.device)
    # On a GPU the host waits for the device, which no clock of the processor sees.
    timer = Timer(time.process_time if given.device == "cpu" else time.perf_counter)
    with tempfile.TemporaryDirectory() as folder:
        weights = given.model or random_network(Path(folder))
        settings = {"model": weights, "source": "x", "slice": "auto", "imgsz": SIDE}
        settings |= {"max_det": 1000, "device": given.device, "batch": given.batch}
        settings |= {"conf": 0.25 if given.model else 0.0}
        cfg = load_config(settings | {"amp": given.amp}, mode="predict")
        model = load_model(weights, model_part(cfg), device)
        own = timer.timed(Predictor(model, device, cfg.amp))
        plain = timer.timed(Predictor(load_trained(weights, model_part(cfg)), device))
    by_training = PredictOptions.from_config(cfg, model)
    assert by_training.slices is not None
    alike = replace(by_training, slices=replace(by_training.slices, overlap=SHARE))
    whole = replace(by_training, slices=None)

    def run(pixels: Array, options: PredictOptions, predictor: Predictor = own) -> Found:
        image = SourceImage("scene", Path("scene.png"), np.ascontiguousarray(pixels))
        (result,) = predictor.stream([image], options)
        return result.boxes.xyxy, result.boxes.conf, result.boxes.cls

    height, width = picture.shape[:2]
    for name, options in (("by the training", by_training), ("0.2", alike)):
        print(f"overlap {name}: {len(options.cut(height, width).tiles)} slices of {SIDE} px")
    defaults: Runs = {"rfla": lambda: run(picture, by_training)}
    same: Runs = {"rfla, overlap=0.2": lambda: run(picture, alike)}
    for predictor, note in ((plain, ""), (own, ", rfla's network")):
        detect = partial(run, options=whole, predictor=predictor)
        if is_installed("sahi"):
            sahi = partial(by_sahi, picture, detect, SIDE, SHARE)
            defaults[f"SAHI{note}"] = sahi
            same[f"SAHI, slices alone{note}"] = partial(sahi, perform_standard_pred=False)
        if is_installed("supervision"):
            same[f"supervision{note}"] = partial(by_supervision, picture, detect, SIDE, SHARE)
    spent = _in_turn(defaults | same, timer, given.repeats)
    for runs in (defaults, same):
        first = spent[next(iter(runs))]
        for name in runs:
            total, beside = spent[name]
            print(
                f"{name}: {total:.2f} s, of which {beside:.3f} s beside the network, "
                f"{total / first[0]:.2f} and {beside / first[1]:.1f} times rfla"
            )


def _in_turn(runs: Runs, timer: Timer, repeats: int) -> dict[str, tuple[float, float]]:
    """Time each after a first pass; return the medians of all, and of all but the network."""
    spent: dict[str, list[tuple[float, float]]] = {name: [] for name in runs}
    for number in range(repeats + 1):
        for name, work in runs.items():
            timer.seconds, started = 0.0, timer.clock()
            boxes = work()[0]
            total = timer.clock() - started
            if number:
                spent[name].append((total, total - timer.seconds))
            else:
                print(f"{name}: {len(boxes)} boxes", flush=True)
    return {
        name: (median(total for total, _ in rows), median(beside for _, beside in rows))
        for name, rows in spent.items()
    }


def repeated(path: Path, times: int) -> Array:
    """Return a picture beside and below itself, every second one mirrored, so that none is cut."""
    picture = read_image(path)
    row = np.concatenate([picture, picture[:, ::-1]] * (times // 2), axis=1)
    return np.concatenate([row, row[::-1]] * (times // 2), axis=0)


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


def main() -> None:
    """Run what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", help="weights; left out: random ones")
    parser.add_argument("--picture", type=Path, help="repeated 4 x 4 times; left out: noise")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--amp", default="true", help="of rfla: bf16 on a CPU, say")
    parser.add_argument("--batch", type=int, default=2, help="of rfla: that of `rfla predict`")
    parser.add_argument("--repeats", type=int, default=3)
    given = parser.parse_args()
    time_slicers(given)
    time_calls()


if __name__ == "__main__":
    main()

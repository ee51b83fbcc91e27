"""Prediction: images in, `Results` out, one batch at a time.

`predict(cfg)` also writes pictures and files.

Shapes: B images of a batch, N detections of one image.
"""

import json
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rfla.cfg import Config, model_part
from rfla.data.images import STRIDE, resize_long_side
from rfla.engine.console import Progress, make_console
from rfla.engine.device import autocast_dtype, select_device
from rfla.engine.distributed import World, agreed, gather, join_world
from rfla.engine.inference import boxes_to_original
from rfla.engine.model_source import SourceModel, load_trained
from rfla.engine.processes import refuse_several
from rfla.engine.run_dir import claim_run_dir
from rfla.engine.sources import SourceImage, find_images, output_names
from rfla.errors import ConfigError, DataError, did_you_mean
from rfla.files import write_atomically
from rfla.ops.normalize import normalize_images
from rfla.results import Boxes, Results

READERS = 4  # images are read ahead by threads; decoding releases the interpreter lock


class Predictor:
    """Runs one network over images of any size.

    Args:
        model: The network and its classes.
        imgsz: Long side of the network's input in px.
        device: Where to compute.
        amp: Half precision on a GPU.
        classes: Class indices that are kept; empty keeps all.
    """

    def __init__(
        self,
        model: SourceModel,
        imgsz: int,
        device: torch.device,
        amp: bool | str = True,
        classes: Sequence[int] = (),
    ):
        self.model, self.imgsz, self.device = model, imgsz, device
        self.net = model.net.to(device).eval()
        self.dtype = autocast_dtype(device, amp)
        self.classes = torch.tensor(sorted(classes), dtype=torch.int64)

    def stream(
        self, images: Sequence[SourceImage], batch: int, skipped: list[str] | None = None
    ) -> Iterator[Results]:
        """Yield the results of each image, in order; an unreadable image is left out.

        Args:
            images: What to run on.
            batch: Images in one pass of the network.
            skipped: Gets one line for each image that could not be read.
        """
        for readable in _read_ahead(images, batch, skipped if skipped is not None else []):
            yield from self._run(readable)

    @torch.inference_mode()
    def _run(self, read: list[tuple[SourceImage, np.ndarray]]) -> Iterator[Results]:
        started = time.perf_counter()
        resized = [resize_long_side(pixels, self.imgsz) for _, pixels in read]
        sizes = [(image.shape[0], image.shape[1]) for image, _ in resized]
        height = -(-max(h for h, _ in sizes) // STRIDE) * STRIDE
        width = -(-max(w for _, w in sizes) // STRIDE) * STRIDE
        stacked = torch.zeros(len(read), 3, height, width, dtype=torch.uint8)
        for row, (scaled, _) in enumerate(resized):
            stacked[row, :, : sizes[row][0], : sizes[row][1]] = torch.from_numpy(scaled).permute(
                2, 0, 1
            )
        normal = self.model.config.normalize
        images = normalize_images(
            stacked.to(self.device), sizes, normal.mean, normal.std, normal.channels
        )
        prepared = time.perf_counter()
        with torch.autocast(
            self.device.type, self.dtype or torch.bfloat16, enabled=self.dtype is not None
        ):
            outputs = self.net(images, image_sizes=sizes)
        outputs = [{key: tensor.cpu() for key, tensor in output.items()} for output in outputs]
        inferred = time.perf_counter()
        speed = {
            "preprocess": 1000 * (prepared - started) / len(read),
            "inference": 1000 * (inferred - prepared) / len(read),
        }
        for (image, pixels), (_, scale), output in zip(read, resized, outputs, strict=True):
            yield self._results(image, pixels, scale, output, speed)

    def _results(
        self,
        image: SourceImage,
        pixels: np.ndarray,
        scale: tuple[float, float],
        output: dict[str, torch.Tensor],
        speed: dict[str, float],
    ) -> Results:
        """Return one image's detections in px of the original."""
        started = time.perf_counter()
        hw = (pixels.shape[0], pixels.shape[1])
        boxes = boxes_to_original(output["boxes"], torch.tensor(scale), hw)
        scores, labels = output["scores"], output["labels"]
        if len(self.classes):
            keep = torch.isin(labels, self.classes)
            boxes, scores, labels = boxes[keep], scores[keep], labels[keep]
        found = Boxes(boxes.float().numpy(), scores.float().numpy(), labels.numpy(), hw)
        postprocess = 1000 * (time.perf_counter() - started)
        return Results(
            pixels, image.name, self.model.names, found, speed | {"postprocess": postprocess}
        )


def _read_ahead(
    images: Iterable[SourceImage], batch: int, skipped: list[str]
) -> Iterator[list[tuple[SourceImage, np.ndarray]]]:
    """Yield batches of images that could be read, while threads read the next ones."""

    def read(image: SourceImage) -> tuple[SourceImage, np.ndarray | None, str]:
        try:
            return image, image.read(), ""
        except DataError as error:
            return image, None, str(error)

    remaining = iter(images)
    with ThreadPoolExecutor(READERS) as pool:
        pending = [pool.submit(read, image) for image in islice(remaining, batch)]
        while pending:
            following = [pool.submit(read, image) for image in islice(remaining, batch)]
            readable = []
            for future in pending:
                image, pixels, reason = future.result()
                if pixels is None:
                    skipped.append(reason)
                else:
                    readable.append((image, pixels))
            if readable:
                yield readable
            pending = following


def class_indices(classes: Sequence[int | str], names: Sequence[str]) -> list[int]:
    """Turn `classes=ship,3` into indices.

    Raises:
        ConfigError: A class that the model does not know.
    """
    indices = []
    for given in classes:
        if str(given) in names:
            indices.append(list(names).index(str(given)))
        elif str(given).isdigit() and int(given) < len(names):
            indices.append(int(given))
        else:
            hint = did_you_mean(str(given), names)
            raise ConfigError(f"classes={given}: the model knows {', '.join(names)}{hint}")
    return indices


def predict(cfg: Config) -> Path:
    """Predict as `rfla predict` does: pictures, `predictions.json`, and YOLO text if asked for.

    Args:
        cfg: Settings; `model` and `source` are needed.

    Returns:
        The run directory.

    Raises:
        RflaError: Anything that the person can mend, in one line.
    """
    if cfg.model is None or cfg.source is None:
        raise ConfigError(
            "predict needs model= (a .safetensors file) and source= (an image, a directory, a pattern, a list)"
        )
    refuse_several(cfg.device, "predict")
    device = select_device(cfg.device)
    return _predict(cfg, join_world(device), device)


def _predict(cfg: Config, world: World, device: torch.device) -> Path:
    console = make_console(quiet=not world.is_main)
    with agreed(world):
        model = load_trained(str(cfg.model), model_part(cfg))
        images = find_images(str(cfg.source))
        predictor = Predictor(
            model, cfg.imgsz, device, cfg.amp, class_indices(cfg.classes, model.names)
        )
    batch = max(1, cfg.batch)  # each process takes whole batches, those that one process would make
    starts = range(world.rank * batch, len(images), world.size * batch)
    share = [image for start in starts for image in images[start : start + batch]]
    places = {
        image.name: (i, name)
        for i, (image, name) in enumerate(zip(images, output_names(images), strict=True))
    }
    skipped: list[str] = []
    rows: dict[int, list[dict[str, Any]]] = {}
    stages: dict[str, float] = {}
    with (
        claim_run_dir(cfg, world, "predict") as run_dir,
        Progress(console).over(len(share), "predict") as bar,
    ):
        for results in predictor.stream(share, batch, skipped):
            place, name = places[results.path]
            write_outputs(results, run_dir, name, cfg)
            rows[place] = results.to_coco(str(name))
            stages = {
                stage: stages.get(stage, 0.0) + value for stage, value in results.speed.items()
            }
            bar.step()
            if cfg.verbose:
                console.print(f"{results.path}: {results.verbose()}")
        everyone = gather(world, (rows, skipped))
        rows = {place: found for shard, _ in everyone for place, found in shard.items()}
        skipped = [reason for _, reasons in everyone for reason in reasons]
        if world.is_main:
            flat = [row for place in sorted(rows) for row in rows[place]]
            write_atomically(run_dir / "predictions.json", json.dumps(flat))
    for reason in skipped:
        console.print(f"skipped: {reason}", style="yellow")
    done = len(images) - len(skipped)
    if not done:
        raise DataError(f"source={cfg.source}: none of {len(images)} images could be read")
    speed = ", ".join(
        f"{stage} {value * world.size / done:.1f} ms" for stage, value in stages.items()
    )
    count = sum(len(found) for found in rows.values())
    console.print(
        f"{done} images, {count} detections with a score of at least {cfg.conf:g}; {speed} an image"
    )
    console.print(f"results in {run_dir}")
    return run_dir


def write_outputs(results: Results, run_dir: Path, name: Path, cfg: Config) -> None:
    """Write one image's picture and text, as the settings ask."""
    if cfg.save:
        results.save(run_dir / name.with_name(name.name + ".png"), cfg.line_width, cfg.show_labels)
    if cfg.save_txt:
        path = run_dir / "labels" / name.with_name(name.name + ".txt")
        path.parent.mkdir(parents=True, exist_ok=True)
        results.save_txt(path, cfg.save_conf)

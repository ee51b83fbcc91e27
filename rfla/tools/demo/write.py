"""`data=demo`: overhead scenes with objects of 2 to 32 px, painted by the package itself.

Every picture is a function of (version, seed, split, number). The set is written once, in a few
seconds, beneath the first data set directory (`RFLA_DATASETS`, else the user's cache) and reused
from then on.
"""

import json
import logging
import multiprocessing
import os
import shutil
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from rfla.data.images import Image
from rfla.data.spec import DEMO_YAML, load_data_spec
from rfla.errors import DataError
from rfla.files import for_opencv
from rfla.tools.demo.canvas import Painting, blank_painting, fractal
from rfla.tools.demo.objects import NAMES
from rfla.tools.demo.places import PLACES

log = logging.getLogger("rfla.data")

SIZE = 256  # px
SEED = 0  # of the whole set
IMAGES = {"train": 200, "val": 60, "test": 60}


def paint_scene(number: int, split: str = "train") -> tuple[Image, NDArray[np.float32], list[int]]:
    """One picture with its objects.

    Args:
        number: Of the picture in its split.
        split: `train`, `val` or `test`.

    Returns:
        (256, 256, 3) uint8 RGB; (G, 4) float32 xyxy px, tight round the painted pixels; G labels
        into `NAMES`.
    """
    rng = np.random.default_rng([SEED, list(IMAGES).index(split), number])
    scene = blank_painting(rng, SIZE)
    PLACES[number % len(PLACES)](scene)
    image = _photograph(scene)
    return image, np.asarray(scene.boxes, np.float32).reshape(-1, 4), scene.labels


def _photograph(scene: Painting) -> Image:
    """Light, clouds, haze, blur and noise of a camera."""
    rng, size = scene.rng, scene.size
    ys, xs = np.mgrid[:size, :size].astype(np.float32) / size - 0.5
    turn = rng.uniform(0, 2 * np.pi)
    light = (
        1 + rng.uniform(0, 0.14) * (xs * np.cos(turn) + ys * np.sin(turn)) - 0.12 * (xs**2 + ys**2)
    )
    if rng.random() < 0.25:  # the shadow of a cloud
        light *= 1 - 0.4 / (1 + np.exp(-(fractal(rng, size, (2, 4, 9)) - 0.7) * 5))
    exposure, haze = rng.uniform(0.92, 1.28), rng.uniform(0.0, 0.12)
    cast = 1 + rng.normal(0, 0.025, 3)
    picture = scene.image * (light[..., None] * exposure * cast).astype(np.float32)
    picture = picture * (1 - haze) + np.array([0.66, 0.70, 0.74], np.float32) * haze
    picture = cv2.GaussianBlur(picture, (0, 0), float(rng.uniform(0.35, 0.65)))
    noise = rng.standard_normal(picture.shape, dtype=np.float32) * rng.uniform(0.008, 0.028)
    return np.asarray(np.clip((picture + noise) * 255 + 0.5, 0, 255), np.uint8)


def prepare_demo(data: str | Path) -> None:
    """Write the demo set if `data` names it and it is not there; leave every other data set alone.

    Raises:
        DataError: `data` names nothing, or the place cannot be written.
    """
    if Path(data).name.removesuffix(".yaml") != "demo":
        return
    spec = load_data_spec(data)
    if spec.source == DEMO_YAML:
        ensure_demo(spec.root)


def ensure_demo(root: Path) -> None:
    """Write the set beneath `root`, in COCO form, unless it is there.

    It is made in a directory beside `root` and renamed when it is complete, so a kill leaves
    nothing half-made, and two processes that start together both succeed.

    Raises:
        DataError: The place cannot be written.
    """
    if root.is_dir():
        return
    log.warning(
        "data=demo: painting %d pictures into %s (once, some seconds)", sum(IMAGES.values()), root
    )
    try:
        root.parent.mkdir(parents=True, exist_ok=True)
        _remove_leftovers(root)
        beside = Path(tempfile.mkdtemp(prefix=f".{root.name}.", dir=root.parent))
        try:
            write_demo(beside)
            beside.chmod(0o755)
            beside.rename(root)
        except OSError:
            if not root.is_dir():  # otherwise another process was faster
                raise
        finally:
            shutil.rmtree(beside, ignore_errors=True)
    except OSError as error:
        raise DataError(
            f"data=demo: {root} cannot be written ({error.strerror}); set RFLA_DATASETS"
        ) from None


def write_demo(folder: Path, images: dict[str, int] | None = None) -> None:
    """Paint and write the splits into `folder`.

    `images` says how many of each, `IMAGES` by default.
    """
    for split, count in (images or IMAGES).items():
        (folder / "images" / split).mkdir(parents=True)
        (folder / "annotations").mkdir(exist_ok=True)
        jobs = [(number, split, folder) for number in range(count)]
        context = multiprocessing.get_context(
            "fork" if "fork" in multiprocessing.get_all_start_methods() else None
        )
        workers = min(os.cpu_count() or 1, 8)
        with ProcessPoolExecutor(
            workers, mp_context=context, initializer=cv2.setNumThreads, initargs=(0,)
        ) as pool:
            painted = list(pool.map(_write_picture, jobs, chunksize=4))
        (folder / "annotations" / f"{split}.json").write_text(json.dumps(_coco(split, painted)))


def _write_picture(job: tuple[int, str, Path]) -> tuple[NDArray[np.float32], list[int]]:
    number, split, folder = job
    image, boxes, labels = paint_scene(number, split)
    options = [
        cv2.IMWRITE_JPEG_QUALITY,
        95,
        cv2.IMWRITE_JPEG_SAMPLING_FACTOR,
        cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444,
    ]
    path = folder / "images" / split / _file_name(split, number)
    if not cv2.imwrite(for_opencv(path), cv2.cvtColor(image, cv2.COLOR_RGB2BGR), options):
        raise OSError(28, "the picture cannot be written", str(path))
    return boxes, labels


def _file_name(split: str, number: int) -> str:
    return f"{split}_{number:03d}_{PLACES[number % len(PLACES)].__name__}.jpg"


def _coco(split: str, painted: list[tuple[NDArray[np.float32], list[int]]]) -> dict[str, Any]:
    first = 1 + 1000 * list(IMAGES).index(
        split
    )  # image ids are unique over the splits, so that trainval keeps them
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number, (boxes, labels) in enumerate(painted):
        name = _file_name(split, number)
        images.append({"id": first + number, "file_name": name, "width": SIZE, "height": SIZE})
        for (x1, y1, x2, y2), label in zip(boxes.tolist(), labels, strict=True):
            annotations.append(
                {
                    "id": first * 1000 + len(annotations),
                    "image_id": first + number,
                    "category_id": label + 1,
                    "bbox": [x1, y1, x2 - x1, y2 - y1],
                    "area": (x2 - x1) * (y2 - y1),
                    "iscrowd": 0,
                }
            )
    categories = [{"id": label + 1, "name": name} for label, name in enumerate(NAMES)]
    return {"images": images, "annotations": annotations, "categories": categories}


def _remove_leftovers(root: Path) -> None:
    """Directories of painters that were killed, once they are an hour old."""
    for folder in root.parent.glob(f".{root.name}.*"):
        if time.time() - folder.stat().st_mtime > 3600:
            shutil.rmtree(folder, ignore_errors=True)

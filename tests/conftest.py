"""Shared fixtures: the folders of recorded parity cases, and small data sets on disk."""

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from zlib import crc32

import cv2
import numpy as np
import pytest

REPOSITORY = Path(__file__).resolve().parent.parent
# Processes that a test spawns import its module by name. Last: the installed package is the one
# that is tested.
sys.path.append(str(REPOSITORY))


def records_path() -> Path:
    """`$RFLA_PARITY`, or `../shared/parity` beside the checkout."""
    return Path(os.environ.get("RFLA_PARITY", REPOSITORY.parent / "shared" / "parity"))


@pytest.fixture(scope="session")
def parity_dir() -> Path:
    """The folder of records made with the authors' code.

    Without it the test is reported as skipped.
    """
    path = records_path()
    if not path.is_dir():
        pytest.skip(f"no parity records at {path}; set RFLA_PARITY")
    return path


@pytest.fixture(scope="session")
def parity(parity_dir: Path) -> Callable[[str], tuple[dict, dict]]:
    """Read one folder of records: `manifest, tensors = parity("hie_assigner")`."""
    from safetensors.torch import load_file

    def read(name: str) -> tuple[dict, dict]:
        folder = parity_dir / name
        tensors = folder / "data.safetensors"
        return json.loads((folder / "manifest.json").read_text()), load_file(
            tensors
        ) if tensors.exists() else {}

    return read


def write_picture(path: Path, height: int = 40, width: int = 60, value: int | None = None) -> None:
    """A picture of noise, or of one grey value, in the format that the name says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = np.random.default_rng(crc32(path.name.encode())).integers(
        0, 255, (height, width, 3), np.uint8
    )
    if value is not None:
        image[:] = value
    done, data = cv2.imencode(path.suffix, image)
    assert done
    path.write_bytes(data.tobytes())


@pytest.fixture
def picture() -> Callable[..., None]:
    return write_picture


@pytest.fixture
def coco(tmp_path: Path) -> Callable[..., Path]:
    """Write `root/images/` and `root/annotations/{split}.json`.

    Boxes by image as (x, y, w, h, category, extra).
    """

    def write(
        boxes: list[list[tuple]],
        split: str = "train",
        size: tuple[int, int] = (40, 60),
        first: int = 1,
    ) -> Path:
        root = tmp_path / "set"
        images, annotations = [], []
        for number, found in enumerate(boxes):
            name = f"{split}_{number}.png"
            write_picture(root / "images" / name, *size)
            images.append(
                {"id": first + number, "file_name": name, "height": size[0], "width": size[1]}
            )
            for x, y, w, h, category, *extra in found:
                entry = {
                    "id": len(annotations) + 1,
                    "image_id": first + number,
                    "bbox": [x, y, w, h],
                    "category_id": category,
                }
                annotations.append(entry | (extra[0] if extra else {}))
        categories = [{"id": 3, "name": "ship"}, {"id": 7, "name": "car"}]
        path = root / "annotations" / f"{split}.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(
            json.dumps({"images": images, "annotations": annotations, "categories": categories})
        )
        return root

    return write


@pytest.fixture
def yolo(tmp_path: Path) -> Callable[..., Path]:
    """Write a YOLO data set of 40 x 60 pictures with the label text given for each.

    Returns its data.yaml.
    """

    def write(labels: list[str | None], split: str = "train") -> Path:
        root = tmp_path / "yolo"
        for number, text in enumerate(labels):
            write_picture(root / "images" / split / f"{number}.png")
            if text is not None:
                label = root / "labels" / split / f"{number}.txt"
                label.parent.mkdir(parents=True, exist_ok=True)
                label.write_text(text)
        path = root / "data.yaml"
        path.write_text("train: images/train\nval: images/train\nnames: {0: ship, 1: car}\n")
        return path

    return write


@pytest.fixture
def write_geotiff() -> Callable[..., None]:
    """`write_geotiff(path, bands, dtype="uint8")`: a tiled GeoTIFF of (bands, H, W)."""
    rasterio = pytest.importorskip("rasterio", reason="the extra [geo] is not installed")
    from rasterio.transform import from_origin

    def write(path: Path, bands: np.ndarray, dtype: str = "uint8") -> None:
        count, height, width = bands.shape
        options = {"tiled": True, "blockxsize": 64, "blockysize": 64, "compress": "deflate"}
        place = {"crs": "EPSG:32633", "transform": from_origin(5e5, 5e6, 0.3, 0.3)}
        with rasterio.open(
            path, "w", "GTiff", width, height, count, dtype=dtype, **options, **place
        ) as out:
            out.write(bands.astype(dtype))

    return write


@pytest.fixture
def memory_for(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], list[int]]:
    """Let a pass of `Inference` hold so many images; returns how many each pass was asked for."""
    import torch

    from rfla.engine.inference import Inference

    real = Inference.__call__

    def give(most: int) -> list[int]:
        tried: list[int] = []

        def limited(self: Inference, images: torch.Tensor, *rest: Any) -> Any:
            tried.append(len(images))
            if len(images) > most:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return real(self, images, *rest)

        monkeypatch.setattr(Inference, "__call__", limited)
        return tried

    return give

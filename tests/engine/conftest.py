"""A tiny data set, and the settings of a model so small that a whole run takes a second."""

import json
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from rfla.cfg import Config, load_config
from rfla.models import zoo

TINY: dict[str, Any] = {
    "model": "fcos_p2",
    "backbone.name": "resnet18",
    "neck.width": 16,
    "head.width": 16,
    "head.depth": 1,
    "imgsz": 64,
    "batch": 2,
    "epochs": 2,
    "workers": 0,
    "device": "cpu",
    "pretrained": False,
    "plots": False,
    "lr0": 0.01,
}


@pytest.fixture(scope="session")
def micro() -> ModuleType:
    """`micro.py`."""
    return import_module("micro")


@pytest.fixture(autouse=True)
def _small_network(micro: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """FCOS has the micro backbone in all tests of this directory."""
    monkeypatch.setitem(zoo.DETECTORS, "fcos", micro.MicroFCOS)


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def write_set(
    root: Path, images: int = 6, names: tuple[str, ...] = ("ship", "car"), size: int = 64
) -> Path:
    """Pictures of noise with bright squares, in COCO form: train and val are the same images."""
    rng = np.random.default_rng(7)
    (root / "images").mkdir(parents=True)
    (root / "annotations").mkdir()
    entries, annotations = [], []
    for number in range(images):
        picture = rng.integers(0, 90, (size, size, 3), np.uint8)
        for _ in range(4):
            x, y = (int(v) for v in rng.integers(2, size - 14, 2))
            side = int(rng.integers(5, 12))
            label = int(rng.integers(0, len(names)))
            picture[y : y + side, x : x + side] = (230, 230, 40) if label else (60, 60, 240)
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": number + 1,
                    "bbox": [x, y, side, side],
                    "area": side * side,
                }
                | {"category_id": label + 1, "iscrowd": 0}
            )
        cv2.imwrite(str(root / "images" / f"{number}.png"), picture)
        entries.append(
            {"id": number + 1, "file_name": f"{number}.png", "height": size, "width": size}
        )
    categories = [{"id": i + 1, "name": name} for i, name in enumerate(names)]
    document = json.dumps({"images": entries, "annotations": annotations, "categories": categories})
    for split in ("train", "val"):
        (root / "annotations" / f"{split}.json").write_text(document)
    return root


@pytest.fixture
def make_set() -> Callable[..., Path]:
    return write_set


@pytest.fixture
def tiny_set(tmp_path: Path) -> Path:
    """Six images of 64 px with four boxes each, two classes."""
    return write_set(tmp_path / "set")


@pytest.fixture
def settings(tiny_set: Path, tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """`settings(**{"epochs": 1})`: what a person would give for a tiny run, as a dict."""

    def give(**changes: Any) -> dict[str, Any]:
        return TINY | {"data": str(tiny_set), "project": str(tmp_path / "runs")} | changes

    return give


@pytest.fixture
def config(settings: Callable[..., dict[str, Any]]) -> Callable[..., Config]:
    """The same, checked."""
    return lambda **changes: load_config(settings(**changes), mode="train")

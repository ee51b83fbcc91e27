"""Networks after an epoch on real images: their exports find what they find, and judge the same.

The images are those of ../shared/data/cells3, beside the records of parity; skipped where absent.
"""

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from rfla import RFLA
from rfla.engine.model_source import load_trained
from rfla.export.exported_net import ExportedNet
from rfla.export.forms import images_of, split_of
from rfla.export.parity import FLOAT32, compare
from rfla.export.session import load_exported
from rfla.results import Results

SIDE = 128
DENSE = {"head": {"width": 32, "depth": 2}}
TWO_STAGES = {"rpn": {"max_proposals": 200}, "roi": {"width": 128}}

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


@pytest.fixture(scope="module")
def cells(parity_dir: Path) -> Path:
    """60 images of blood cells to judge on, and 240 to learn from."""
    return parity_dir.parent / "data" / "cells3"


@pytest.fixture(
    scope="module", params=["fcos_p2", "faster_rcnn", "cascade_rcnn", "detectors"], ids=str
)
def pair(request: Any, cells: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The weights of a network, and its export."""
    root = tmp_path_factory.mktemp(request.param)
    net = RFLA(request.param)
    net.train(
        data=cells,
        imgsz=SIDE,
        epochs=1,
        fraction=160,
        batch=4,
        recipe="scratch",
        backbone={"name": "resnet18"},
        neck={"width": 32},
        workers=0,
        device="cpu",
        plots=False,
        project=root,
        **(DENSE if request.param == "fcos_p2" else TWO_STAGES),
    )
    return Path(net.model), net.export(data=cells, out=root / "x.onnx")


def test_the_same_detections_in_all_images(pair: tuple[Path, Path], cells: Path) -> None:
    model = load_trained(pair[0])
    exported = load_exported(pair[1], model.config, torch.device("cpu")).net
    assert isinstance(exported, ExportedNet)
    images = images_of(split_of(str(cells), "val"), model, SIDE, 60)
    batches = [[image] for image in images]
    parity = compare(model.net, model.config.normalize, exported, batches, FLOAT32)
    assert parity.images == 60 and parity.detections > 500
    assert parity.share >= 0.999, parity.line()


def test_the_same_figures(pair: tuple[Path, Path], cells: Path, tmp_path: Path) -> None:
    one, other = (
        RFLA(path).val(
            data=cells, device="cpu", workers=0, plots=False, project=tmp_path, name=path.suffix[1:]
        )
        for path in pair
    )
    assert one.figures["ap"] > 0.01
    for name, value in one.figures.items():
        assert other.figures[name] == pytest.approx(value, abs=1e-3, nan_ok=True)


def boxes_of(results: list[Results]) -> list[np.ndarray]:
    """(N, 6) of each image: xyxy, confidence, class."""
    return [
        np.column_stack((result.boxes.xyxy, result.boxes.conf, result.boxes.cls))
        for result in results
    ]


def test_batches_of_1_and_8(pair: tuple[Path, Path], cells: Path) -> None:
    paths = sorted((cells / "images").iterdir())[:8]
    net = RFLA(pair[1])
    alone, together = (
        boxes_of(net.predict([str(path) for path in paths], device="cpu", conf=0.05, batch=batch))
        for batch in (1, 8)
    )
    assert sum(map(len, alone)) > 20
    for one, other in zip(alone, together, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-3)


def test_odd_sizes_few_places_and_nothing(pair: tuple[Path, Path], cells: Path) -> None:
    image = cv2.imread(str(sorted((cells / "images").iterdir())[0]))[..., ::-1]
    odd = np.ascontiguousarray(image[:67, :101])
    weights, exported = (RFLA(path) for path in pair)
    for settings in ({"conf": 0.05}, {"conf": 0.05, "max_det": 3}):
        one, other = (
            boxes_of(net.predict([image, odd], device="cpu", **settings))
            for net in (weights, exported)
        )
        assert len(one[0]) >= 3
        for first, second in zip(one, other, strict=True):
            np.testing.assert_allclose(first, second, atol=1e-2)
    assert not len(exported.predict(image, device="cpu", conf=0.999)[0].boxes)

"""Networks so small that they are exported in a second or two, with random weights."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from rfla.engine.model_source import weights_metadata
from rfla.models import build_detector
from rfla.models.backbones.sac import SwitchableConv2d
from rfla.models.detector import Detector
from rfla.models.weights import save_weights

SMALL: dict[str, Any] = {
    "backbone.name": "resnet18",
    "neck.width": 16,
    "head.width": 16,
    "test.score_thr": 0.01,
    "test.nms_pre": 300,
    "test.max_det": 100,
}
DENSE = {"head.depth": 1}
TWO_STAGES = {"rpn.nms_pre": 100, "rpn.max_proposals": 80, "roi.width": 32}
PARTS: dict[str, tuple[str, dict[str, Any]]] = {
    "fcos_p2_up": ("fcos_p2", {"neck.bottom_up": True}),
    "autoassign_field": ("autoassign", {"loss.coding": "field"}),
}
"""Detectors with other parts than their own, by a name of this directory."""
NAMES = ("ship", "car", "bus")


def small_net(name: str) -> Detector:
    """A detector whose scores and boxes differ from place to place."""
    torch.manual_seed(0)
    name, parts = PARTS.get(name, (name, {}))
    two_stages = name in ("faster_rcnn", "cascade_rcnn", "detectors")
    settings = SMALL | (TWO_STAGES if two_stages else DENSE) | parts
    net = build_detector(name, num_classes=len(NAMES), settings=settings)
    for key, parameter in net.named_parameters():
        if parameter.dim() > 1 and ("cls" in key or "reg" in key):
            torch.nn.init.normal_(parameter, std=0.05)
    for module in net.modules():  # random switches and offsets let all signal die away
        if isinstance(module, SwitchableConv2d):
            module.keep_weight()
    if name == "detectors":
        settle(net)
    return net.eval()


def settle(net: Detector) -> None:
    """Give batch norm the statistics of noise: signals of 20,000 would make all scores alike."""
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = None  # the plain mean of what was seen
            module.train()
    with torch.no_grad():
        net.raw(torch.randn(2, 3, 128, 128))


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """`weights("fcos")`: a weights file for images of 128 px."""
    root = tmp_path_factory.mktemp("weights")

    def make(name: str) -> Path:
        path = root / f"{name}.safetensors"
        if not path.exists():
            net = small_net(name)
            save_weights(path, net.state_dict(), weights_metadata(net.config, NAMES, 128, {}, {}))
        return path

    return make


@pytest.fixture(scope="session")
def exported(
    weights: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., Path]:
    """`exported("fcos", nms=False)`: a file of it, ONNX by default; each is made once."""
    from rfla.cfg.verbs import ExportOptions
    from rfla.export.command import export
    from rfla.export.forms import FORMS

    root = tmp_path_factory.mktemp("exported")

    def make(name: str, **changes: Any) -> Path:
        label = "_".join([name, *(f"{key}-{value}" for key, value in sorted(changes.items()))])
        path = root / f"{label}{FORMS[changes.get('format', 'onnx')].suffix}"
        if not path.exists():
            export(ExportOptions(model=str(weights(name)), out=str(path), **changes))
        return path

    return make


@pytest.fixture
def boxes_data(tmp_path: Path) -> Path:
    """A data set of four images of 128 px with a few boxes, in COCO format."""
    root = tmp_path / "data"
    (root / "images").mkdir(parents=True)
    (root / "annotations").mkdir()
    rng = np.random.default_rng(0)
    images, annotations = [], []
    for number in range(4):
        name = f"{number}.png"
        pixels = rng.integers(0, 256, (128, 128 - 9 * number, 3), dtype=np.uint8)
        cv2.imwrite(str(root / "images" / name), pixels)
        height, width = pixels.shape[:2]
        images.append({"id": number, "file_name": name, "width": width, "height": height})
        for x, y in rng.integers(0, 90, (6, 2)).tolist():
            box = [x, y, 8 + x % 9, 8 + y % 9]
            annotations.append(
                {"id": len(annotations) + 1, "image_id": number, "category_id": 1 + x % 3}
                | {"bbox": box, "area": box[2] * box[3], "iscrowd": 0}
            )
    categories = [{"id": i + 1, "name": name} for i, name in enumerate(NAMES)]
    content = {"images": images, "annotations": annotations, "categories": categories}
    (root / "annotations" / "val.json").write_text(json.dumps(content))
    return root

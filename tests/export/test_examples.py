"""The examples and the code in docs/export.md do what rfla does."""

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnxruntime
import pytest
import torch

from rfla import RFLA
from rfla.ops.nms import DetectionLimits, select_detections

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("name", ["faster_rcnn", "detectors"])  # the second needs 96 px at least
def test_detect_onnx(exported: Callable[..., Path], tmp_path: Path, name: str) -> None:
    image = np.random.default_rng(0).integers(0, 256, (70, 150, 3), dtype=np.uint8)
    path, model = tmp_path / "x.png", exported(name)
    cv2.imwrite(str(path), image)
    result = RFLA(model).predict(path, conf=0.25, device="cpu")[0]
    expected = [
        f"{row['name']} {row['confidence']:.3f} "
        + " ".join(f"{side:.1f}" for side in row["box"].values())
        for row in result.summary()
    ]
    command = [sys.executable, ROOT / "examples" / "detect_onnx.py", model, path]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    assert len(said) == len(expected) > 3
    for one, other in zip(said, expected, strict=True):
        words, numbers = one.split(), other.split()
        assert words[0] == numbers[0]
        np.testing.assert_allclose(
            np.array(words[1:], float), np.array(numbers[1:], float), atol=0.11
        )


def test_the_suppression_in_the_docs(exported: Callable[..., Path]) -> None:
    code = re.search(r"```python\n(.*?)```", (ROOT / "docs" / "export.md").read_text(), re.S)
    assert code is not None
    names: dict[str, Any] = {}
    exec(code[1], names)  # the page's own code
    session = onnxruntime.InferenceSession(exported("fcos_p2", nms=False))
    images = np.random.default_rng(0).integers(0, 256, (1, 3, 96, 128), dtype=np.uint8)
    boxes, scores = session.run(None, {"images": images, "image_sizes": np.array([[96, 128]])})
    found = names["suppress"](boxes[0], scores[0], iou=0.5, max_det=50)
    limits = DetectionLimits(score_thr=0.0, nms_iou=0.5, max_det=50)
    expected = select_detections(
        torch.from_numpy(boxes[0]), torch.from_numpy(scores[0]), None, limits
    )
    assert len(found[0]) > 10
    shows = (expected["boxes"][:, 2:] > expected["boxes"][:, :2]).all(dim=1)
    for ours, theirs in zip(found, expected.values(), strict=True):
        np.testing.assert_allclose(ours, np.asarray(theirs[shows]), atol=1e-6)

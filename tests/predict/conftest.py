"""A network so small that a prediction takes milliseconds, with random weights, and images."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from rfla.engine.model_source import weights_metadata
from rfla.models import build_detector
from rfla.models.weights import save_weights

TINY = {
    "backbone.name": "resnet18",
    "neck.width": 16,
    "head.width": 16,
    "head.depth": 1,
}


@pytest.fixture(scope="session")
def session_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    net = build_detector("fcos_p2", num_classes=2, settings=TINY)
    for name, parameter in net.named_parameters():
        if name.endswith("bias") and parameter.shape == (2,):  # scores of about a third
            torch.nn.init.constant_(parameter, -0.7)
    path = tmp_path_factory.mktemp("weights") / "best.safetensors"
    save_weights(path, net.state_dict(), weights_metadata(net.config, ("ship", "car"), 64, {}, {}))
    return path


@pytest.fixture
def weights(session_weights: Path) -> Path:
    """A weights file of two classes, ship and car, for images of 64 px."""
    return session_weights


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three images of different sizes."""
    root = tmp_path / "in"
    root.mkdir()
    rng = np.random.default_rng(0)
    for name, size in {"a.png": (64, 64), "b.png": (40, 90), "c.png": (70, 30)}.items():
        cv2.imwrite(str(root / name), rng.integers(0, 255, (*size, 3), np.uint8))
    return root

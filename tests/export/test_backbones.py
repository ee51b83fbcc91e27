"""One network of each family, exported: compared with torch before anything is written."""

from pathlib import Path
from typing import Any

import pytest
import torch

from rfla import RFLA
from rfla.engine.model_source import weights_metadata
from rfla.errors import ConfigError
from rfla.models import build_detector
from rfla.models.weights import save_weights

SMALL: dict[str, Any] = {
    "neck.width": 16,
    "head.width": 16,
    "head.depth": 1,
    "test.score_thr": 0.01,
    "test.nms_pre": 300,
    "test.max_det": 100,
}
SLOW = [
    *("resnext50_32x4d", "wide_resnet50_2", "regnet_x_400mf", "convnext_tiny", "efficientnet_b0"),
    *("timm/convnext_atto", "timm/tf_efficientnet_lite0", "timm/pvt_v2_b0"),
    "timm/swin_tiny_patch4_window7_224",
]
ONE_SIZE: dict[str, Any] = {"dynamic": False, "batch": 1, "imgsz": 128}


def weights(name: str, folder: Path) -> str:
    torch.manual_seed(0)
    net = build_detector("fcos_p2", 3, settings=SMALL | {"backbone": name}).eval()
    for key, parameter in net.head.named_parameters():
        if parameter.dim() > 1 and ("cls" in key or "reg" in key):
            torch.nn.init.normal_(parameter, std=0.05)
    path = folder / "net.safetensors"
    metadata = weights_metadata(net.config, ["a", "b", "c"], 128, {}, {})
    save_weights(path, net.state_dict(), metadata)
    return str(path)


@pytest.mark.parametrize(
    "name",
    ["mobilenet_v3_small", *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW)],
)
def test_a_network_of_each_family(name: str, tmp_path: Path) -> None:
    written = RFLA(weights(name, tmp_path)).export(format="onnx")
    assert Path(written).stat().st_size > 1e6


@pytest.mark.slow
@pytest.mark.parametrize("name", ["swin_t", "swin_v2_t"])
def test_torchvisions_swin_has_one_size(name: str, tmp_path: Path) -> None:
    """Its windows are laid out in Python, for the size that it sees in the export."""
    model = RFLA(weights(name, tmp_path))
    with pytest.raises(ConfigError, match="the export does not find what the network finds"):
        model.export(format="onnx")
    assert not list(tmp_path.glob("*.onnx"))
    written = model.export(format="onnx", **ONE_SIZE)
    assert Path(written).stat().st_size > 1e8

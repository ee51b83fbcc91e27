"""Pyramids that start at P2 or P1: every detector learns on them, and tiny boxes use them."""

import pytest
import torch

from rfla.cli import main
from rfla.errors import ConfigError
from rfla.models import build_detector
from rfla.models.detector import Detector

SMALL = {
    "neck.width": 8,
    "head.width": 8,
    "head.depth": 1,
    "backbone.frozen_stages": -1,
    "backbone.norm_trainable": True,
}
TARGET = {
    "boxes": torch.tensor([[8.0, 8, 11, 10], [30.0, 30, 33, 34]]),  # 3 x 2 and 3 x 4 px
    "labels": torch.tensor([0, 1]),
}


def detector(name: str, start: int, backbone: str = "resnet18") -> Detector:
    torch.manual_seed(0)
    two_stages = {"roi.width": 8} if name in ("faster_rcnn", "cascade_rcnn") else {}
    settings = SMALL | two_stages | {"neck.start_level": start, "backbone": backbone}
    return build_detector(name, 2, settings=settings)


def learn(net: Detector) -> None:
    images = torch.randn(2, 3, 64, 64)
    optimizer = torch.optim.SGD(net.parameters(), lr=1e-3)
    for _ in range(2):
        optimizer.zero_grad()
        losses, counts = net.train()(images, [TARGET, TARGET], with_counts=True)
        total = torch.stack(list(losses.values())).sum()
        assert total.isfinite() and int(counts["positives"]) > 0
        total.backward()
        assert [key for key, p in net.named_parameters() if p.grad is None] == []
        optimizer.step()
    with torch.no_grad():
        assert len(net.eval()(images)) == 2


@pytest.mark.parametrize("name", ["retinanet", "autoassign"])
def test_p2_of_what_starts_at_p3(name: str) -> None:
    net = detector(name, 2)
    assert net.neck.strides == [4, 8, 16, 32, 64]
    learn(net)


@pytest.mark.parametrize(
    "name", ["fcos_p2", "rfd", "retinanet", "autoassign", "faster_rcnn", "cascade_rcnn"]
)
def test_p1(name: str) -> None:
    net = detector(name, 1)
    assert net.neck.strides[:3] == [2, 4, 8]
    learn(net)
    stem = net.backbone.relu(net.backbone.bn1(net.backbone.conv1(torch.zeros(1, 3, 64, 64))))
    assert torch.equal(net.backbone(torch.zeros(1, 3, 64, 64))[0], stem)


@pytest.mark.parametrize(
    "backbone",
    ["mobilenet_v3_small", "regnet_x_400mf", "efficientnet_b0", "timm/tf_efficientnet_lite0"],
)
def test_p1_stands_on_the_stem_of_any_network_that_has_one(backbone: str) -> None:
    net = detector("fcos_p2", 1, backbone)
    assert net.neck.lateral_convs[0].in_channels == net.backbone.channels[0]
    learn(net)


def test_boxes_of_three_px_use_p1() -> None:
    """Half the field of P1, 7 px, fits them: all their positives lie on it, 2 px apart."""
    net = detector("fcos_p2", 1)
    assert net.points.sides[:3] == (7.0, 35.0, 91.0)
    raw = net.raw(torch.zeros(1, 3, 64, 64))
    found = net.priors(raw, [TARGET], [(64, 64)])
    assert found is not None
    grid, matched = found[0], found[1][0]
    # centres (9.5, 9) and (31.5, 32): three each, and the second stage finds one more of box 1
    of_box: list[list[list[float]]] = [grid.centers[matched == box].tolist() for box in (0, 1)]
    assert of_box[0] == [[7, 9], [9, 9], [11, 9]]
    assert of_box[1] == [[31, 31], [33, 31], [31, 33], [33, 33]]


@pytest.mark.parametrize("backbone", ["swin_t", "convnext_tiny", "timm/convnext_atto"])
def test_a_network_without_a_map_of_stride_2(backbone: str) -> None:
    words = (
        "neck.start_level=1: the backbone has no map of stride 2; its strides are 4, 8, 16, 32: "
        "from neck.start_level=2 on"
    )
    with pytest.raises(ConfigError, match=words):
        detector("fcos_p2", 1, backbone)


def test_the_command_line_shows_the_cost(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", "model=fcos_p2", "backbone=resnet18", "imgsz=64", "neck.width=16"]) == 0
    assert "GFLOPs" in capsys.readouterr().out
    assert main(["info", "backbone=mobilenet_v3_small", "imgsz=64"]) == 0
    assert "maps          stride 2: 16, stride 4: 16, stride 8: 24" in capsys.readouterr().out
    assert main(["info", "backbone=resnet18", "imgsz=64"]) == 0
    assert "maps          stride 2: 64, stride 4: 64, stride 8: 128" in capsys.readouterr().out
    assert main(["info", "model=fcos_p2", "backbone=swin_t", "neck.start_level=1"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "no map of stride 2" in error

"""Somebody else's program adds a detector and a backbone: one class, one entry, one name each."""

from collections.abc import Sequence
from typing import Self

import pytest
import torch
from torch import Tensor, nn

from rfla.cfg import model_schema
from rfla.models import build_detector, load_pretrained_backbone, zoo
from rfla.models.assigners import build_assigner
from rfla.models.backbones import build as backbones
from rfla.models.backbones.backbone import Backbone
from rfla.models.detector import Detector, StepLosses, step_counts
from rfla.models.fcos import FCOS
from rfla.models.limits import build_limits
from rfla.models.necks.fpn import FPN
from rfla.models.priors import build_points
from rfla.ops.boxes import flatten_levels
from rfla.ops.nms import select_detections


class ToyBackbone(Backbone):
    """Strides 8 to 32 alone."""

    name = "toy"
    channels = (8, 12, 16)
    strides = (8, 16, 32)

    def __init__(self) -> None:
        super().__init__()
        self.stages = nn.ModuleList(
            [nn.Conv2d(3, 8, 8, stride=8), nn.Conv2d(8, 12, 2, 2), nn.Conv2d(12, 16, 2, 2)]
        )

    @classmethod
    def from_config(cls, section: model_schema.BackboneConfig) -> Self:
        return cls()

    def forward(self, images: Tensor) -> list[Tensor]:
        maps = []
        for stage in self.stages:
            images = stage(images).relu()
            maps.append(images)
        return maps

    def thaw(self) -> None:
        self.requires_grad_(True)

    def load_imagenet(self, std: Sequence[float], channels: str) -> bool:
        return False


class CenterNet(Detector):
    """Class scores at every point, and a box of the level's stride round the best of them."""

    def __init__(self, backbone, neck, points, limits, num_classes: int) -> None:
        super().__init__(backbone, neck, num_classes)
        self.points, self.limits = points, limits
        self.score = nn.Conv2d(neck.width, num_classes, 1)

    @classmethod
    def from_config(cls, config: model_schema.ModelConfig, num_classes: int) -> Self:
        backbone = backbones.build_backbone(config.backbone)
        neck = FPN.from_config(config.neck, backbone)
        assigner = build_assigner(config.assigner, baseline=None)
        points = build_points(config, backbone, neck.strides, assigner)
        return cls(backbone, neck, points, build_limits(config.test), num_classes)

    def raw(self, images):
        return {"cls": [self.score(level) for level in self.pyramid(images)]}

    def assign(self, raw, targets, image_sizes):
        return self.points.assign(raw["cls"], targets, image_sizes)

    def grid(self, raw):
        return self.points.grid(raw["cls"])

    def loss(self, raw, targets, image_sizes):
        positive = self.assign(raw, targets, image_sizes) >= 0
        best = flatten_levels(raw["cls"], self.num_classes).amax(dim=2)
        loss = nn.functional.binary_cross_entropy_with_logits(best, positive.float())
        return StepLosses({"loss_center": loss}, step_counts(positive.sum(), targets))

    @torch.no_grad()
    def decode(self, raw, image_sizes):
        centers, strides = self.grid(raw).centers, self.points.stride_of_each(raw["cls"])
        boxes = torch.cat((centers - strides / 2, centers + strides / 2), dim=1)
        scores = flatten_levels(raw["cls"], self.num_classes).sigmoid()
        return [select_detections(boxes, own, None, self.limits) for own in scores]


@pytest.fixture
def added(monkeypatch):
    monkeypatch.setitem(zoo.DETECTORS, "centernet", CenterNet)
    monkeypatch.setitem(backbones.BACKBONES, "toy", ToyBackbone)
    model_schema.DETECTORS.append("centernet")
    model_schema.BACKBONES.append("toy")
    yield
    model_schema.DETECTORS.remove("centernet")
    model_schema.BACKBONES.remove("toy")


SMALL = {"neck.width": 8, "neck.levels": 4, "head.width": 8, "head.depth": 0}


def train_two_steps(net: Detector) -> None:
    torch.manual_seed(0)
    images = torch.randn(2, 3, 64, 96)
    target = {"boxes": torch.tensor([[8.0, 8, 20, 24]]), "labels": torch.tensor([1])}
    nothing = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)}
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    totals = []
    for _ in range(2):
        optimizer.zero_grad()
        losses, counts = net.train()(images, [target, nothing], with_counts=True)
        assert int(counts["positives"]) > 0 and int(counts["boxes"]) == 1
        sum(losses.values()).backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())
        optimizer.step()
        totals.append(float(sum(losses.values()).detach()))
    assert totals[1] < totals[0]
    with torch.no_grad():
        assert len(net.eval()(images, image_sizes=[(64, 96), (50, 60)])) == 2


@pytest.mark.usefixtures("added")
def test_a_detector():
    net = build_detector("fcos", 2, settings=SMALL | {"detector": "centernet", "backbone": "toy"})
    assert isinstance(net, CenterNet) and net.config.detector == "centernet"
    train_two_steps(net)
    raw = net.raw(torch.zeros(1, 3, 64, 64))
    grid, matched = net.priors(raw, [{"boxes": torch.zeros(0, 4), "labels": []}], [(64, 64)])
    assert len(grid) == 8 * 8 + 4 * 4 + 2 * 2 + 1 and matched.shape == (1, len(grid))


@pytest.mark.usefixtures("added")
def test_a_backbone():
    """The neck stands on its strides, and `assigner.fields=traced` counts its layers."""
    settings = SMALL | {"backbone": "toy", "assigner.fields": "traced"}
    net = build_detector("fcos", 2, settings=settings)
    assert isinstance(net, FCOS) and isinstance(net.backbone, ToyBackbone)
    assert net.neck.strides == [8, 16, 32, 64]
    # 8 px, two and four cells of it, then a 3 x 3 layer on cells of 64 px
    assert net.points.sides == (8.0, 16.0, 32.0, 32.0 + 2 * 64)
    train_two_steps(net)
    assert not load_pretrained_backbone(net)


@pytest.mark.usefixtures("added")
def test_a_neck_that_starts_below_the_backbone():
    from rfla.errors import ConfigError

    with pytest.raises(ConfigError, match=r"no map of stride 4; its strides are 8, 16, 32"):
        build_detector("fcos_p2", 2, settings={"backbone": "toy"})


def test_the_contract_is_enforced():
    """A detector or a backbone that lacks a method cannot be built."""

    class Half(Detector):
        def raw(self, images):
            return {}

    with pytest.raises(TypeError, match="abstract"):
        Half(ToyBackbone(), FPN([8], [8], start_level=3, levels=1), 2)
    with pytest.raises(TypeError, match="abstract"):
        Backbone()

"""The fields of a detector: which its priors have, from where, and what a file says of them."""

import math

import pytest
import torch
from torch import nn

from rfla.errors import ConfigError
from rfla.fields import MeasuredField
from rfla.models import build_detector
from rfla.models.detector_fields import (
    measured_sides,
    pyramid_influence,
    sides_from,
    sides_of,
    use_sides,
    with_sides,
)

SMALL = {"backbone": "resnet18", "neck.width": 8, "head.width": 8, "head.depth": 0}
AUTHORS = [35, 91, 267, 427, 555]


def small(model: str = "fcos_p2", **settings):
    changes = {f"assigner.{key}": value for key, value in settings.items()}
    return build_detector(model, 1, settings=SMALL | changes)


@pytest.mark.parametrize("model", ["fcos_p2", "faster_rcnn"])
@pytest.mark.parametrize(
    ("fields", "sides"),
    [
        ("authors", AUTHORS),
        ("traced", [43, 99, 211, 435, 563]),  # ResNet-18, and two cells of 64 px more
        ("measured", AUTHORS),  # until it is measured
        ([4, 8, 16, 32, 64.5], [4, 8, 16, 32, 64.5]),
    ],
)
def test_where_they_come_from(model, fields, sides):
    net = small(model, fields=fields)
    assert sides_of(net) == sides
    raw = net.raw(torch.zeros(1, 3, 64, 64))
    widths = net.grid(raw).boxes[:, 2] - net.grid(raw).boxes[:, 0]
    # points have the field, anchors come in three shapes, of which the second is square
    assert float(widths[0 if model == "fcos_p2" else 1]) == pytest.approx(0.5 * sides[0])


def test_other_sides_change_the_grid():
    net = small()
    raw = net.raw(torch.zeros(1, 3, 64, 64))
    before = net.grid(raw).boxes
    use_sides(net, [10, 20, 40, 80, 160])
    after = net.grid(raw).boxes
    assert (after[0, 2] - after[0, 0]).item() == 5 and before.shape == after.shape
    with pytest.raises(ValueError, match="4 sides for 5 levels"):
        use_sides(net, [1, 2, 3, 4])
    with pytest.raises(ValueError, match="without points or anchors"):
        use_sides(nn.Linear(2, 2), [1])
    assert sides_of(nn.Linear(2, 2)) == []


def test_measured_on_images_of_any_size():
    """Padded to a multiple of 32 px as for training; the same each time."""
    torch.manual_seed(0)
    net = small().eval()
    pictures = [torch.rand(3, 70, 96), torch.rand(3, 64, 50)]
    assert pyramid_influence(net, pictures)[0].stride == (4, 4)
    sides = measured_sides(net, pictures)
    assert sides == measured_sides(net, pictures) and len(sides) == 5
    assert all(0 < side < 4 * 96 for side in sides) and sides_of(net) == AUTHORS


def test_a_level_that_looks_at_nothing_keeps_its_side():
    seen = MeasuredField((2.0, 8.0), (4, 4), (0, 0), 0.1)
    blind = MeasuredField((math.nan, math.nan), (4, 4), (math.nan, math.nan), math.nan)
    assert sides_from([seen, blind, seen, seen, blind], small()) == [16, 91, 16, 16, 555]


def test_what_a_file_says():
    """Measured fields as numbers, all others as they were asked for."""
    net = small(fields="measured", refresh_fields=3)
    use_sides(net, [1.5, 2, 3, 4, 5])
    saved = with_sides(net.config, net).assigner
    assert saved.fields == (1.5, 2, 3, 4, 5) and saved.refresh_fields == 0
    net = small(fields="traced")
    assert with_sides(net.config, net) == net.config
    net = build_detector("retinanet", 1, "atss", SMALL | {"assigner.fields": "measured"})
    assert with_sides(net.config, net) == net.config  # anchors are no fields there


def test_a_backbone_without_theoretical_fields():
    with pytest.raises(
        ConfigError, match=r"^assigner.fields=traced: .* unbounded \(.*\); take .*=measured$"
    ):
        build_detector("detectors", 1, settings={"assigner.fields": "traced"})

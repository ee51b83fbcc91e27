"""Grids computed inside a graph are those that are looked up, to the bit."""

import pytest
import torch

from rfla.export.grid import TracedGrid
from rfla.models import build_detector


@pytest.mark.parametrize("name", ["fcos_p2", "autoassign", "retinanet", "faster_rcnn"])
def test_the_same_priors(name: str) -> None:
    net = build_detector(name, num_classes=1, settings={"backbone.name": "resnet18"})
    priors = next(m for m in net.modules() if hasattr(m, "make") and hasattr(m, "strides"))
    levels = [torch.zeros(1, 1, 23 + i, 31 - i) for i in range(len(priors.strides))]
    expected, traced = priors.grid(levels), TracedGrid(priors.make([(1, 1)] * len(levels)), levels)
    assert torch.equal(traced.centers, expected.centers)
    assert traced.level_counts == list(expected.level_counts)
    if name in ("retinanet", "faster_rcnn"):
        assert torch.equal(traced.boxes, expected.boxes)
    else:  # decoding takes the centres of points alone
        torch.testing.assert_close(traced.boxes, expected.boxes, rtol=0, atol=1e-4)

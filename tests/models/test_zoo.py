"""The class of a detector follows from its name, and settings that it cannot have are refused."""

import pytest

from rfla.errors import ConfigError
from rfla.models import build_detector
from rfla.models.assigners import points_baseline
from rfla.models.cascade_rcnn import CascadeRCNN
from rfla.models.faster_rcnn import FasterRCNN

SMALL = {"backbone": "resnet18", "neck.width": 8, "head.width": 8, "roi.width": 8}
STAGES = {
    1: {"roi.pos_iou": [0.5], "roi.stage_weights": [1.0], "roi.stds": [[0.1, 0.1, 0.2, 0.2]]},
    2: {
        "roi.pos_iou": [0.5, 0.6],
        "roi.stage_weights": [1.0, 0.5],
        "roi.stds": [[0.1, 0.1, 0.2, 0.2], [0.05, 0.05, 0.1, 0.1]],
    },
}


def test_a_cascade_has_any_number_of_stages():
    for count, settings in STAGES.items():
        net = build_detector("cascade_rcnn", 2, settings=SMALL | settings)
        assert type(net) is CascadeRCNN
        assert len(net.roi_head.stages) == len(net.roi_head.bbox_head) == count


def test_faster_rcnn_has_one_stage():
    assert type(build_detector("faster_rcnn", 2, settings=SMALL | STAGES[1])) is FasterRCNN
    with pytest.raises(ConfigError, match=r"one stage, and roi\.pos_iou 2; detector=cascade_rcnn"):
        build_detector("faster_rcnn", 2, settings=SMALL | STAGES[2])


@pytest.mark.parametrize(
    ("levels", "expected"),
    [
        (1, [(-1, 1e8)]),
        (3, [(-1, 64), (64, 128), (128, 1e8)]),
        (5, [(-1, 64), (64, 128), (128, 256), (256, 512), (512, 1e8)]),
        # a sixth level goes on where the fifth ends, and no distance is left out
        (6, [(-1, 64), (64, 128), (128, 256), (256, 512), (512, 1024), (1024, 1e8)]),
    ],
)
def test_regress_ranges_of_any_number_of_levels(levels, expected):
    section = build_detector("fcos", 2, "baseline", SMALL).config.assigner
    assert list(points_baseline(section, levels).regress_ranges) == expected

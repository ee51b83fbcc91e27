"""MaxIoU: by hand and against the recorded assignments of MMDetection."""

import pytest
import torch

from rfla.assign import MaxIoUAssigner, PriorGrid
from rfla.assign import chunks as chunks_module

PRIORS = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 5], [20, 20, 30, 30], [0, 0, 10, 4]])
BOX = torch.tensor([[0.0, 0.0, 10.0, 10.0]])  # IoU 1, 0.5, 0, 0.4


def test_thresholds_by_hand():
    assigner = MaxIoUAssigner(pos_iou_thr=0.5, neg_iou_thr=0.4, match_low_quality=False)
    assert assigner(PRIORS, BOX).tolist() == [0, 0, -1, -2]  # 0.4 is neither below 0.4 nor 0.5
    assert assigner(PRIORS, BOX[:0]).tolist() == [-1, -1, -1, -1]


def test_low_quality_goes_to_the_later_box():
    priors, boxes = (
        torch.tensor([[0.0, 0, 4, 4], [50, 50, 54, 54]]),
        torch.tensor([[0.0, 0, 10, 10], [0, 0, 8, 8]]),
    )
    # the first prior is the best of both boxes, with IoU 0.16 and 0.25
    assert MaxIoUAssigner(0.7, 0.3, min_pos_iou=0.1)(priors, boxes).tolist() == [1, -1]
    assert MaxIoUAssigner(0.7, 0.3, min_pos_iou=0.3)(priors, boxes).tolist() == [-1, -1]


def test_ignore_boxes_beat_everything():
    ignore = torch.tensor([[0.0, 0.0, 10.0, 4.5]])  # holds 0.45, 0.9, 0, 1 of the priors
    assert MaxIoUAssigner(0.5, 0.5)(PRIORS, BOX, ignore).tolist() == [0, -2, -1, -2]
    never = MaxIoUAssigner(0.5, 0.5, ignore_iof_thr=None)
    assert never(PRIORS, BOX, ignore).tolist() == [0, 0, -1, -1]


def test_ignore_boxes_count_where_there_is_no_object(monkeypatch):
    ignore = torch.tensor([[20.0, 20.0, 30.0, 24.0], [0.0, 0.0, 10.0, 4.5]])
    for budget in (2**20, 1):  # all ignore boxes at a time, and one
        monkeypatch.setattr(chunks_module.chunks, "__defaults__", (budget,))
        assert MaxIoUAssigner()(PRIORS, BOX[:0], ignore).tolist() == [-1, -2, -1, -2]


def test_border():
    assigner = MaxIoUAssigner(0.5, 0.5)
    assert assigner(PRIORS, BOX, image_size=(25, 25), allowed_border=0).tolist() == [0, 0, -2, -1]


def test_chunks_do_not_matter(monkeypatch):
    generator = torch.Generator().manual_seed(0)
    corner = torch.rand(60, 2, generator=generator) * 50
    boxes = torch.cat((corner, corner + torch.rand(60, 2, generator=generator) * 30), dim=1)
    priors = boxes[torch.randperm(60, generator=generator)] + 1
    assigner = MaxIoUAssigner(0.6, 0.3, min_pos_iou=0.2)
    whole = assigner(priors, boxes)
    monkeypatch.setattr(chunks_module.chunks, "__defaults__", (4000,))
    assert torch.equal(assigner(priors, boxes), whole)
    assert torch.equal(
        assigner.batch([priors, priors], [boxes, boxes[:0]])[1], torch.full((60,), -1)
    )


def test_recorded_assignments(parity, ours):
    manifest, tensors = parity("rfd_metric")
    strides = [4, 8, 16, 32, 64]
    sizes = [(-(-192 // s), -(-320 // s)) for s in strides]
    grid = PriorGrid.anchors(sizes, strides, strides, fraction=1.0, scales=[8])
    cases = [case for case in manifest["cases"] if "cfg" in case]
    assert len(cases) >= 12
    for case in cases:
        settings = {**case["cfg"], "ignore_iof_thr": None}
        matched = MaxIoUAssigner(**settings)(grid, tensors[case["gts"]])
        assert torch.equal(matched, ours(tensors[case["gt_inds"]])), case["mode"]


@pytest.mark.parametrize("count", [0, 3])
def test_no_priors(count):
    assert MaxIoUAssigner()(torch.zeros(0, 4), torch.ones(count, 4)).shape == (0,)

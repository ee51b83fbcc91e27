"""ATSS against the definition, written out box by box."""

import pytest
import torch

from rfla.assign import ATSSAssigner, PriorGrid
from rfla.assign.max_iou import pairwise_iou


def reference(grid, boxes, topk):
    best = torch.zeros(len(grid))
    matched = torch.full((len(grid),), -1)
    for index, box in enumerate(boxes):
        centre = (box[:2] + box[2:]) / 2
        distance = ((grid.centers - centre) ** 2).sum(dim=1)
        candidates = []
        for level in range(len(grid.strides)):
            of_level = (grid.level_index == level).nonzero().squeeze(1)
            candidates.append(of_level[distance[of_level].sort(stable=True).indices[:topk]])
        candidates = torch.cat(candidates)
        iou = pairwise_iou(box[None], grid.boxes[candidates])[0]
        threshold = iou.mean() + iou.std()
        inside = (
            (grid.centers[candidates] - box[:2] > 0.01)
            & (box[2:] - grid.centers[candidates] > 0.01)
        ).all(dim=1)
        for prior, value in zip(
            candidates[inside & (iou >= threshold)].tolist(),
            iou[inside & (iou >= threshold)],
            strict=True,
        ):
            if matched[prior] < 0 or value > best[prior]:
                matched[prior], best[prior] = index, value
    return matched


@pytest.mark.parametrize("seed", range(3))
def test_equals_the_definition(seed):
    generator = torch.Generator().manual_seed(seed)
    grid = PriorGrid.points([(16, 16), (8, 8)], [4, 8], [32, 64])
    centre, size = (
        torch.rand(15, 2, generator=generator) * 64,
        torch.rand(15, 2, generator=generator) * 30 + 4,
    )
    boxes = torch.cat((centre - size / 2, centre + size / 2), dim=1)
    matched = ATSSAssigner(topk=9)(grid, boxes)
    assert (matched >= 0).sum() > 10
    assert torch.equal(matched, reference(grid, boxes, 9))


def test_edges():
    grid = PriorGrid.points([(2, 2)], [4], [8])
    assigner = ATSSAssigner()
    assert (assigner(grid, torch.zeros(0, 4)) == -1).all()
    boxes = torch.tensor([[0.0, 0.0, 4.0, 4.0]])
    assert assigner(grid, boxes).tolist() == [0, -1, -1, -1]
    assert assigner(grid, boxes, image_size=(4, 4)).tolist() == [0, -2, -2, -2]
    assert assigner(grid, boxes, torch.tensor([[4.0, 0.0, 8.0, 4.0]])).tolist() == [0, -2, -1, -1]
    assert assigner.batch(grid, [boxes, boxes[:0]]).tolist() == [[0, -1, -1, -1], [-1] * 4]


@pytest.mark.parametrize(("left", "first"), [(1.988, 0), (1.992, -1)])
def test_a_point_counts_from_a_hundredth_px_inside(left, first):
    """The first point is (2, 2), 0.012 and 0.008 px from the left side; the others are outside."""
    grid = PriorGrid.points([(2, 2)], [4], [8])
    boxes = torch.tensor([[left, 0.0, left + 4, 4.0]])
    assert ATSSAssigner()(grid, boxes, image_size=(4, 4)).tolist() == [first, -2, -2, -2]

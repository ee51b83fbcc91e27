"""The pairs found in the grid are all pairs, however small the chunks and far out the boxes."""

import numpy as np
import pytest

from rfla.metrics import overlaps
from rfla.metrics.overlaps import ALMOST_ONE, GroupedBoxes, find_overlaps


def scene(seed):
    """Detections near true boxes of the same group, some far out, of no width or of whole px."""
    rng = np.random.default_rng(seed)
    span = rng.choice([1.0, 30.0, 1e4, 1e8])
    corner = rng.uniform(-span, span, (40, 2))
    corner = corner.round() if seed % 3 == 0 else corner
    sides = np.exp(rng.normal(rng.choice([-6.0, 0.0, 3.0, 8.0]), 1, (40, 2)))
    sides[rng.random(40) < 0.05] = 0
    corner[0] = 1e9
    group = np.sort(rng.integers(0, 6, 40)) * 1000

    source = np.sort(rng.integers(0, 40, 60))
    moved = corner[source] + rng.normal(0, 0.2, (60, 2)) * sides[source] * (seed % 2)
    found = GroupedBoxes(group[source], *moved.T, *sides[source].T)
    return found, GroupedBoxes(group, *corner.T, *sides.T), rng.random(40) < seed % 4 / 4


def pairs_by_definition(found, truth, crowd, lowest):
    """Detection, box and overlap of all pairs, those of a detection by falling overlap and row."""
    rows = []
    for det, gt in np.argwhere(found.group[:, None] == truth.group):
        width = min(truth.w[gt] + truth.x[gt], found.w[det] + found.x[det])
        width -= max(truth.x[gt], found.x[det])
        height = min(truth.h[gt] + truth.y[gt], found.h[det] + found.y[det])
        height -= max(truth.y[gt], found.y[det])
        if width > 0 and height > 0:
            area = found.w[det] * found.h[det]
            union = area + truth.w[gt] * truth.h[gt] - width * height
            overlap = width * height / (area if crowd[gt] else union)
            if overlap >= min(lowest, ALMOST_ONE):
                rows.append((det, -overlap, -gt))
    return [(det, -gt, -overlap) for det, overlap, gt in sorted(rows)]


@pytest.mark.parametrize("at_once", [1, 20, 1 << 16])
@pytest.mark.parametrize("seed", range(12))
def test_all_pairs_are_found(monkeypatch, seed, at_once):
    monkeypatch.setattr(overlaps, "DETECTIONS", at_once)
    monkeypatch.setattr(overlaps, "PAIRS", at_once)
    found, truth, crowd = scene(seed)
    for lowest in (0.05, 0.5, 1.0):
        chunks = list(find_overlaps(found, truth, crowd, lowest))
        rows = [
            row
            for chunk in chunks
            for row in zip(chunk.det.tolist(), chunk.gt.tolist(), chunk.iou.tolist(), strict=True)
        ]
        assert rows == pairs_by_definition(found, truth, crowd, lowest)


def test_nothing_to_compare():
    found, truth, crowd = scene(0)
    nothing = np.zeros(0, np.int64)
    assert not list(find_overlaps(found.rows(nothing), truth, crowd, 0.5))
    assert not list(find_overlaps(found, truth.rows(nothing), crowd[nothing], 0.5))

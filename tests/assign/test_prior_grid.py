"""Prior grids against the records and by hand."""

import pytest
import torch

from rfla.assign import PriorGrid


def test_points_by_hand():
    grid = PriorGrid.points([(1, 2)], [8], [20], fraction=0.5)  # centres 4 and 12, side 10
    assert grid.boxes.tolist() == [[-1, -1, 9, 9], [7, -1, 17, 9]]
    assert grid.centers.tolist() == [[4, 4], [12, 4]]
    corner = PriorGrid.points([(1, 2)], [8], [20], fraction=0.5, offset="corner")
    assert corner.boxes.tolist() == [[-5, -5, 5, 5], [3, -5, 13, 5]]


def test_anchors_run_rows_columns_ratios():
    grid = PriorGrid.anchors(
        [(2, 1)], [4], [8], fraction=1.0, ratios=(1.0, 4.0)
    )  # ratio 4: 4 wide, 16 high
    assert grid.boxes.tolist() == [[-4, -4, 4, 4], [-2, -8, 2, 8], [-4, 0, 4, 8], [-2, -4, 2, 12]]
    assert grid.shape_group.tolist() == [0, 1, 0, 1]


def test_levels_follow_each_other():
    grid = PriorGrid.points([(2, 3), (1, 2)], [4, 8], [8, 16])
    assert len(grid) == 8 == len(grid.boxes)
    assert grid.level_counts == (6, 2)
    assert grid.level_starts == (0, 6, 8)
    assert grid.level_index.tolist() == [0] * 6 + [1] * 2


def test_scaling_keeps_the_original():
    grid = PriorGrid.points([(1, 1)], [8], [16], fraction=1.0)
    assert grid.scaled(0.5).boxes.tolist() == [[0, 0, 8, 8]]
    assert grid.boxes.tolist() == [[-4, -4, 12, 12]]
    assert grid.scaled(0.5).longest_sides == (8.0,)


def test_a_grid_moves_to_another_device():
    grid = PriorGrid.points([(1, 4)], [4], [8])
    assert grid.to("meta").device.type == "meta"
    assert grid.to("cpu") is grid


def test_valid_cells_and_border_by_hand():
    grid = PriorGrid.points(
        [(3, 3)], [4], [8], fraction=0.5
    )  # centres 2, 6, 10; sides 4: fields touch
    cells = grid.valid((5, 12)).view(3, 3)  # 5 px are two rows of cells
    assert cells.tolist() == [[True] * 3, [True] * 3, [False] * 3]
    inside = grid.valid((9, 12), allowed_border=0).view(
        3, 3
    )  # rows end at 4, 8, 12; a field must end before 9 (12)
    assert inside.tolist() == [[True, True, False]] * 2 + [[False] * 3]


def test_bad_input():
    with pytest.raises(ValueError, match="same levels, got 1, 2 and 1"):
        PriorGrid.points([(1, 1)], [4, 8], [8])
    with pytest.raises(ValueError, match="level 1 has 0 x 1 cells; sizes start at 1"):
        PriorGrid.points([(1, 1), (0, 1)], [4, 8], [8, 16])
    with pytest.raises(ValueError, match="offset"):
        PriorGrid.points([(1, 1)], [4], [8], offset="middle")
    with pytest.raises(ValueError, match="image_size"):
        PriorGrid.points([(1, 1)], [4], [8]).valid(None, 0)


def test_recorded_rf_grids(parity, recorded_grid):
    """Every grid and every valid flag of the authors' RFGenerator, bit for bit."""
    manifest, tensors = parity("rf_priors")
    checked = 0
    for case in manifest["cases"]:
        for entry in case.get("grids", []):
            grid = recorded_grid(
                {**case, "family": "rfgen", "featmap_sizes": entry["featmap_sizes"]}
            )
            assert torch.equal(grid.boxes, tensors[entry["tensor"]]), case["id"]
            assert list(grid.level_counts) == entry["per_level"]
            checked += 1
            if "valid_flags_pad_shape_100x70" in entry:
                assert torch.equal(
                    grid.valid((100, 70)), tensors[entry["valid_flags_pad_shape_100x70"]]
                )
    assert checked > 30


def test_recorded_anchors_of_the_baselines(parity):
    manifest, tensors = parity("rf_priors")
    cases = {case["id"]: case for case in manifest["cases"]}
    case = cases["AnchorGenerator_faster_baseline"]
    strides = case["args"]["strides"]
    grid = PriorGrid.anchors(
        case["featmap_sizes"], strides, strides, fraction=1.0, scales=case["args"]["scales"]
    )
    assert torch.equal(grid.boxes, tensors[case["grid"]])
    case = cases["AnchorGenerator_retina_default"]
    strides = case["args"]["strides"]
    octaves = [4 * 2 ** (i / 3) for i in range(3)]
    grid = PriorGrid.anchors(case["featmap_sizes"], strides, strides, fraction=1.0, scales=octaves)
    assert torch.equal(grid.boxes, tensors[case["grid"]])


def test_recorded_point_fields(parity, recorded_grid):
    _, tensors = parity("hie_assigner")
    for level, first in (("p2", 4), ("p3", 8)):
        strides = [first * 2**i for i in range(5)]
        sizes = [(-(-192 // s), -(-320 // s)) for s in strides]
        prior = {
            "level": level,
            "family": "fcos_points",
            "featmap_sizes": sizes,
            "strides": strides,
            "fraction": 0.5,
        }
        assert torch.equal(
            recorded_grid(prior).boxes, tensors[f"prior_full_fcos_points_{level}_192x320_f0.5"]
        )

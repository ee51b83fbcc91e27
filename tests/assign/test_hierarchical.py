"""The hierarchical assigner: by hand, and against every recorded case of the authors' code."""

from pathlib import Path

import oracle
import pytest
import torch

from rfla.assign import (
    ATSSAssigner,
    HierarchicalAssigner,
    MaxIoUAssigner,
    PriorGrid,
    hierarchical,
    images,
    receptive_field_distance,
    resnet_receptive_fields,
)
from rfla.errors import ConfigError

NAMES = {"kl": "kld", "wd": "wd", "exp_kl": "exp_kld", "kl_10": "kld_10"}
PLATEAUS = {"c011", "c026", "c041", "c056", "c141"}
"""Decided exceptions: the official code gives a degenerate box hundreds of priors (c141: all).

Ours k a stage.
"""


def test_one_box_by_hand():
    """Points 2, 6, 10, 14, fields of 4 px and a box of 4 px on 6: kl = 2 dx^2 / 16."""
    grid = PriorGrid.points([(1, 4)], [4], [8])
    box = torch.tensor([[4.0, 0.0, 8.0, 4.0]])
    assert HierarchicalAssigner(topk=(1, 1), ignore_above=None)(grid, box).tolist() == [
        -1,
        0,
        -1,
        -1,
    ]
    # 2 and 10 tie for the second place: the box takes both
    assert HierarchicalAssigner(topk=(2, 1), ignore_above=None)(grid, box).tolist() == [0, 0, 0, -1]
    # kl of the neighbours in the second stage, fields of 3.6 px: ln(16/12.96) + 12.96/16 - 1 + 2 =
    # 2.02, score 0.33
    assert HierarchicalAssigner(topk=(1, 1), ignore_above=0.33)(grid, box).tolist() == [
        -2,
        0,
        -2,
        -1,
    ]


@pytest.mark.parametrize("size", [4, 60])
def test_a_score_of_exactly_ignore_above_ignores(size):
    """The third best prior of the second stage scores just that, and no stage takes it."""
    grid = PriorGrid.points([(size, size)], [4], [16])
    boxes = torch.tensor([[5.0, 6.0, 11.5, 13.25]])
    scores = receptive_field_distance(boxes, grid.scaled(0.9).boxes)[0]
    order = scores.argsort(descending=True)
    assert scores[order[2]] > scores[order[3]]
    matched = HierarchicalAssigner(topk=(2, 1), ignore_above=float(scores[order[2]]))(grid, boxes)
    assert matched[order[:4]].tolist() == [0, 0, -2, -1]


def test_second_stage_fills_what_the_first_left():
    """With fields shrunk to the size of the second box its best prior changes level.

    A prior once given stays given.
    """
    grid = PriorGrid.points([(1, 1), (1, 1)], [4, 8], [8, 32])  # fields of 4 and 16 px
    box = torch.tensor([[-0.0, -0.0, 8.0, 8.0]])  # 8 px
    first = HierarchicalAssigner(topk=(1, 1), decay=1.0, ignore_above=None)(grid, box)
    both = HierarchicalAssigner(topk=(1, 1), decay=0.5, ignore_above=None)(grid, box)
    assert first.tolist() == [0, -1]
    assert both.tolist() == [0, 0]  # 16 px shrink to 8: now the better


def test_conflicts():
    grid = PriorGrid.points([(1, 1)], [4], [8])
    boxes = torch.tensor([[1.0, 1.0, 3.0, 3.0], [0.0, 0.0, 8.0, 8.0], [0.0, 0.0, 4.0, 4.0]])
    assert HierarchicalAssigner(conflict="last")(grid, boxes).tolist() == [2]
    assert HierarchicalAssigner(conflict="smallest")(grid, boxes).tolist() == [0]
    assert HierarchicalAssigner(conflict="smallest")(grid, boxes[[0, 0, 1]]).tolist() == [
        1
    ]  # of equal areas the last


def test_centers_inside():
    grid = PriorGrid.points([(1, 3)], [4], [8])  # centres 2, 6, 10
    box = torch.tensor([[4.0, 0.0, 10.0, 4.0]])  # 10 is on the border, not strictly inside
    assigner = HierarchicalAssigner(topk=(3, 1), ignore_above=None, centers_inside=True)
    assert assigner(grid, box).tolist() == [-1, 0, -1]
    assert assigner(grid, torch.zeros(0, 4)).tolist() == [-1, -1, -1]


def test_ignore_boxes_act_after_selection():
    grid = PriorGrid.points([(1, 4)], [4], [8])  # fields 0-4, 4-8, 8-12, 12-16
    box, ignore = torch.tensor([[4.0, 0.0, 8.0, 4.0]]), torch.tensor([[0.0, 0.0, 10.0, 4.0]])
    assigner = HierarchicalAssigner(topk=(1, 1), ignore_above=None)
    assert assigner(grid, box, ignore).tolist() == [
        -2,
        0,
        -2,
        -1,
    ]  # half of the third field is enough
    assert assigner(grid, box[:0], ignore).tolist() == [-2, -2, -2, -1]
    assert assigner(grid, box, torch.zeros(0, 4)).tolist() == [-1, 0, -1, -1]


def test_image_size_and_border():
    grid = PriorGrid.points([(1, 4)], [4], [8])
    box = torch.tensor([[12.0, 0.0, 16.0, 4.0]])
    assigner = HierarchicalAssigner(topk=(1, 1), ignore_above=None)
    assert assigner(grid, box, image_size=(4, 12)).tolist() == [
        -1,
        -1,
        0,
        -2,
    ]  # the best prior is beyond the image
    # fields must end before 12 + 0: the third one, 8-12, does not
    assert assigner(grid, box, image_size=(5, 12), allowed_border=0).tolist() == [-1, 0, -2, -2]
    with pytest.raises(ValueError, match="image size"):
        assigner(grid, box, allowed_border=0)


def test_fewer_priors_than_k():
    grid = PriorGrid.points([(1, 2)], [4], [8])
    box = torch.tensor([[4.0, 0.0, 8.0, 4.0]])
    assert HierarchicalAssigner(topk=(9, 9))(grid, box).tolist() == [0, 0]
    assert HierarchicalAssigner(topk=(9, 9))(grid, box, image_size=(4, 4)).tolist() == [0, -2]


def test_a_plateau_gives_k_nearest():
    """A box of no size under exp_kld: every score underflows to 0.

    The 3 nearest of 400 win, ties by index.
    """
    grid = PriorGrid.points([(20, 20)], [4], [40], fraction=1.0)
    box = torch.tensor(
        [[41.0, 42.0, 41.0, 42.0]]
    )  # nearest centres: column 10 (42), row 10 (42), then 9 (38)
    matched = HierarchicalAssigner("exp_kld", topk=(3, 1), ignore_above=None)(grid, box).view(
        20, 20
    )
    positives = (matched == 0).nonzero().tolist()
    assert positives == [
        [9, 10],
        [10, 9],
        [10, 10],
    ]  # squares 1 + 0, 9 + 0, and 1 + 16: (9, 10), the first of two


@pytest.mark.parametrize("distance", ["kld", "giou"])
def test_plain_boxes_equal_the_grid(distance):
    grid = PriorGrid.points([(16, 16)], [4], [24])
    centre = torch.rand(12, 2, generator=torch.Generator().manual_seed(3)) * 64
    boxes = torch.cat((centre - 5, centre + 5), dim=1)
    assigner = HierarchicalAssigner(distance)
    assert torch.equal(assigner(grid.boxes, boxes), assigner(grid, boxes))


def test_bad_settings():
    with pytest.raises(
        ConfigError, match=r"assigner\.conflict: 'smalest'.*did you mean 'smallest'"
    ):
        HierarchicalAssigner(conflict="smalest")
    with pytest.raises(ConfigError, match=r"assigner\.topk"):
        HierarchicalAssigner(topk=(3, 0))
    with pytest.raises(ConfigError, match=r"assigner\.decay"):
        HierarchicalAssigner(decay=0)
    with pytest.raises(ConfigError, match="no distance"):
        HierarchicalAssigner("l2")


def recorded(parity):
    manifest, tensors = parity("hie_assigner")
    for case in manifest["cases"]:
        settings = case["assigner"]
        assigner = HierarchicalAssigner(
            NAMES[settings["assign_metric"]],
            settings["topk"],
            settings["ratio"],
            settings["inside"],
        )
        yield case, assigner, tensors


def gt_of(case, tensors):
    return tensors.get(f"{case['id']}.gts", torch.zeros(0, 4))


@pytest.mark.parametrize("of_a_gpu", [False, True])
def test_recorded_cases(parity, recorded_grid, ours, of_a_gpu, monkeypatch):
    """Index for index, for every case without ignore boxes, except the listed plateaus.

    By the way of a GPU too, which keeps all candidates.
    """
    if of_a_gpu:
        monkeypatch.setattr(hierarchical, "_listed_on", lambda _: False)
    checked = 0
    for case, assigner, tensors in recorded(parity):
        if case["id"] in PLATEAUS or case.get("gt_ignore") or "error" in case:
            continue
        grid, boxes = recorded_grid(case["prior"]), gt_of(case, tensors)
        matched = assigner(grid, boxes)
        assert torch.equal(matched, ours(tensors[case["gt_inds"]])), case["id"]
        checked += 1
    assert checked >= 90


def test_recorded_without_boxes_inside(parity, recorded_grid):
    """No boxes and `inside=True`: all background, where the official code fails (IndexError)."""
    failing = [(case, assigner) for case, assigner, _ in recorded(parity) if "error" in case]
    assert failing
    for case, assigner in failing:
        assert (assigner(recorded_grid(case["prior"]), torch.zeros(0, 4)) == -1).all()


def test_recorded_plateaus(parity, recorded_grid, ours):
    """At most k priors for each box and stage; a box off the plateau gets the recorded ones."""
    seen = set()
    for case, assigner, tensors in recorded(parity):
        if case["id"] not in PLATEAUS:
            continue
        seen.add(case["id"])
        boxes = gt_of(case, tensors)
        matched, official = (
            assigner(recorded_grid(case["prior"]), boxes),
            ours(tensors[case["gt_inds"]]),
        )
        counts = torch.bincount(matched[matched >= 0], minlength=len(boxes))
        wide = torch.bincount(official[official >= 0], minlength=len(boxes)) > 2 * sum(
            assigner.topk
        )
        assert wide.any()
        assert (counts[wide] <= sum(assigner.topk)).all()
        if (
            case["id"] != "c141"
        ):  # there one box took every prior, so nothing can be said of the others
            for box in (~wide).nonzero().flatten().tolist():
                missing = (official == box) & (matched != box)
                assert not missing.any(), (case["id"], box)
    assert seen == PLATEAUS


def test_recorded_ignore_boxes(parity, recorded_grid, ours):
    """The official ignore accident, re-created from outside.

    Plain IoU with the rescaled priors masks the first stage.
    By decision ours instead ignores background of which half lies in an ignore box, after
    selection.
    """
    cases = [
        (case, assigner, tensors)
        for case, assigner, tensors in recorded(parity)
        if case.get("gt_ignore")
    ]
    assert cases
    for case, assigner, tensors in cases:
        grid, boxes, regions = (
            recorded_grid(case["prior"]),
            gt_of(case, tensors),
            tensors[case["gt_ignore"]],
        )
        fields = oracle.rescale(grid.boxes, assigner.decay)
        inter, union, _ = oracle.overlaps(regions, fields)
        threshold = case["assigner"]["ignore_iof_thr"]
        masked = (inter / union > threshold).any(dim=0) if threshold > 0 else None
        name = NAMES[case["assigner"]["assign_metric"]]
        official = oracle.assign(
            grid.boxes,
            grid.shape_group,
            boxes,
            name,
            assigner.topk,
            assigner.decay,
            masked_in_first_stage=masked,
        )
        assert torch.equal(official, ours(tensors[case["gt_inds"]])), case["id"]
        plain, ignoring = assigner(grid, boxes), assigner(grid, boxes, regions)
        inter = oracle.overlaps(regions, grid.boxes)[0]
        sides = grid.boxes[:, 2:] - grid.boxes[:, :2]
        covered = (inter / sides.prod(dim=1) >= 0.5).any(dim=0)
        assert torch.equal(ignoring, torch.where((plain == -1) & covered, -2, plain))


def test_the_records_accident_of_a_shared_tensor(parity, recorded_grid, ours):
    """A second official call sees the fields that the first has shrunk."""
    checked = 0
    for case, assigner, tensors in recorded(parity):
        key = case.get("gt_inds_second_call_same_tensor")
        if key and case["id"] not in PLATEAUS and not case.get("gt_ignore"):
            grid = recorded_grid(case["prior"])
            assert torch.equal(
                assigner(grid.scaled(assigner.decay), gt_of(case, tensors)), ours(tensors[key])
            )
            assert torch.equal(
                grid.boxes, recorded_grid(case["prior"]).boxes
            )  # ours leaves the caller's grid alone
            checked += 1
    assert checked


def test_chunks_do_not_matter(monkeypatch):
    grid = PriorGrid.anchors([(64, 64), (32, 32)], [4, 8], [35, 91])
    generator = torch.Generator().manual_seed(0)
    centre, size = (
        torch.rand(300, 2, generator=generator) * 256,
        torch.rand(300, 2, generator=generator) * 30 + 2,
    )
    boxes = torch.cat((centre - size / 2, centre + size / 2), dim=1)
    whole = HierarchicalAssigner()(grid, boxes)
    monkeypatch.setattr(images, "CACHE_BUDGET", images.CACHE_BUDGET // 100)
    assert torch.equal(HierarchicalAssigner()(grid, boxes), whole)


def test_a_representation_says_the_settings_and_no_address():
    text = repr(HierarchicalAssigner("wd", topk=(2, 1), ignore_above=None))
    assert text.startswith("HierarchicalAssigner(distance=Distance(formula='1 / (1 + dx^2 + dy^2")
    assert text.endswith(
        "topk=(2, 1), decay=0.9, centers_inside=False, ignore_above=None, conflict='last')"
    )
    assert " at 0x" not in text and "tensor" not in repr(PriorGrid.points([(4, 4)], [4], [8]))
    assert repr(ATSSAssigner(topk=1)) == "ATSSAssigner(topk=1)"


def test_boxes_of_another_shape_are_refused():
    """Five numbers a box, a score among them, are not five boxes of four."""
    grid = PriorGrid.points([(4, 4)], [4], [8])
    for assigner in (HierarchicalAssigner(), MaxIoUAssigner(), ATSSAssigner(topk=1)):
        with pytest.raises(ValueError, match=r"\(G, 4\) x1, y1, x2, y2 expected, not \(4, 5\)"):
            assigner(grid, torch.ones(4, 5))
        assert (assigner(grid, torch.zeros(0)) == -1).all()  # no box, of any shape
    with pytest.raises(ValueError, match="a tensor for each image expected, not none"):
        HierarchicalAssigner().batch(grid, [])


def test_half_precision_and_autocast_change_nothing():
    grid = PriorGrid.points([(64, 64), (32, 32)], [4, 8], [35, 91])
    generator = torch.Generator().manual_seed(0)
    corner = torch.randint(0, 240, (80, 2), generator=generator)
    boxes = torch.cat(
        (corner, corner + torch.randint(1, 16, (80, 2), generator=generator)), dim=1
    ).float()
    for distance in ("kld", "wd", "giou", "gcd"):
        assigner = HierarchicalAssigner(distance)
        expected = assigner(grid, boxes)
        assert torch.equal(
            assigner(grid, boxes.half()), expected
        )  # whole numbers below 2048 are exact
        assert torch.equal(assigner(grid, boxes.double()), expected)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert torch.equal(assigner(grid, boxes), expected)


def test_no_gradient_is_recorded():
    grid = PriorGrid.points([(8, 8)], [4], [16])
    boxes = torch.tensor([[4.0, 4.0, 12.0, 12.0]], requires_grad=True)
    assert not HierarchicalAssigner()(grid, boxes).requires_grad


@pytest.mark.parametrize("distance", ["kld", "wd", "gcd", "iou"])
@pytest.mark.parametrize(
    "broken",
    [
        [float("nan")] * 4,
        [float("inf")] * 4,
        [0.0, 0.0, float("inf"), 5.0],
        [-1e30, -1e30, 1e30, 1e30],
        [10.0, 10.0, 5.0, 5.0],  # inside out
    ],
)
def test_a_broken_box_disturbs_no_other(distance, broken):
    grid = PriorGrid.points([(8, 8)], [4], [16])
    boxes = torch.tensor([broken, [4.0, 4.0, 12.0, 12.0]])
    alone = HierarchicalAssigner(distance)(grid, boxes[1:])
    assert torch.equal(HierarchicalAssigner(distance)(grid, boxes) == 1, alone == 0)


@pytest.mark.slow
@pytest.mark.skipif(
    not Path("/proc/self/clear_refs").exists(), reason="needs Linux's /proc to forget a memory peak"
)
@pytest.mark.parametrize(
    ("distance", "count"), [("kld", 2000), ("wd", 2000), ("giou", 100), ("diou", 100)]
)
def test_peak_memory(distance, count):
    """2,000 boxes on 159,882 anchors add less than 64 MiB.

    The dense path keeps to its budget, however many boxes.
    """
    sizes = [(200, 200), (100, 100), (50, 50), (25, 25), (13, 13)]
    grid = PriorGrid.anchors(sizes, [4, 8, 16, 32, 64], [35, 91, 267, 427, 555])
    generator = torch.Generator().manual_seed(0)
    centre, side = (
        torch.rand(count, 2, generator=generator) * 800,
        torch.rand(count, 2, generator=generator) * 30 + 2,
    )
    boxes = torch.cat((centre - side / 2, centre + side / 2), dim=1)
    assigner = HierarchicalAssigner(distance)
    assigner(grid, boxes[:3])

    def kib(field):
        lines = Path("/proc/self/status").read_text().splitlines()
        return int(next(line for line in lines if line.startswith(field)).split()[1])

    Path("/proc/self/clear_refs").write_text("5")
    before = kib("VmRSS")
    assigner(grid, boxes)
    assert (kib("VmHWM") - before) / 1024 < 64


@pytest.mark.parametrize("conflict", ["last", "smallest"])
@pytest.mark.parametrize("sizes", [None, [(300, 512), (512, 200)]])
@pytest.mark.parametrize(
    ("distance", "above"), [("kld", 0.3), ("wd", 0.002), ("nwd", 0.3), ("exp_kld", 0.8)]
)
def test_the_way_of_a_gpu_assigns_the_same(monkeypatch, distance, above, sizes, conflict):
    """All candidates kept, none listed: on a CPU here, whose numbers are the same."""
    grid = PriorGrid.points(
        [(64, 64), (32, 32), (16, 16)], [8, 16, 32], resnet_receptive_fields(50, [3, 4, 5])
    )
    generator = torch.Generator().manual_seed(len(distance))
    corners = torch.rand(60, 2, generator=generator) * 480
    boxes = torch.cat([corners, corners + 2 + 30 * torch.rand(60, 2, generator=generator)], dim=1)
    assigner = HierarchicalAssigner(distance, conflict=conflict, ignore_above=above)
    listed = assigner.batch(grid, [boxes[:40], boxes[40:]], None, sizes)
    monkeypatch.setattr(hierarchical, "_listed_on", lambda _: False)
    kept = assigner.batch(grid, [boxes[:40], boxes[40:]], None, sizes)
    assert torch.equal(listed, kept) and (listed >= 0).sum() > 100 and (listed == -2).any()

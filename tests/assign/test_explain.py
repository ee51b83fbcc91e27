"""The report of an assignment, by hand."""

import torch

from rfla.assign import AssignmentReport, HierarchicalAssigner, PriorGrid


def test_report_by_hand():
    grid = PriorGrid.points([(1, 4), (1, 2)], [4, 8], [8, 40])
    boxes = torch.tensor([[4.0, 0.0, 8.0, 4.0], [4.0, 0.0, 8.0, 4.0], [2.0, -6.0, 22.0, 14.0]])
    report = HierarchicalAssigner(topk=(1, 1), ignore_above=None).explain(grid, boxes)
    # the twins both want prior 1 in both stages; the later one gets it. The last box is prior 5
    assert report.positives == (0, 1, 1)
    assert report.without_positive == (0,)
    assert report.conflicts == 2
    assert report.level_positives == (1, 1)
    assert (report.background, report.ignored) == (4, 0)
    assert report.histogram == {0: 1, 1: 2}
    assert [
        (b.name, b.boxes, b.positives, b.without, b.mean) for b in report.size_bins if b.boxes
    ] == [
        ("very tiny 2-8", 2, 1, 1, 0.5),
        ("small 16-32", 1, 1, 0, 1.0),
    ]


def test_conflicts_of_both_stages_count():
    """Twins want two priors in the first stage and one in the second: three conflicts."""
    grid = PriorGrid.points([(1, 4)], [4], [8])
    boxes = torch.tensor([[4.5, 0.0, 8.5, 4.0]] * 2)
    report = HierarchicalAssigner(topk=(2, 1), ignore_above=None).explain(grid, boxes)
    assert report.conflicts == 3


def test_text_and_merge():
    grid = PriorGrid.points([(8, 8)], [4], [16])
    explain = HierarchicalAssigner().explain
    one, none = (
        explain(grid, torch.tensor([[4.0, 4.0, 10.0, 10.0]])),
        explain(grid, torch.zeros(0, 4)),
    )
    both = AssignmentReport.merge([one, none])
    assert both.images == 2
    assert both.positives == one.positives
    assert both.background == one.background + 64
    text = str(both)
    assert text == both.text()
    assert "2 images, 1 box," in text
    assert "very tiny 2-8" in text
    assert "positives by stride: 4:" in text

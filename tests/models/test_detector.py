"""What every detector takes in training, and what it refuses before the network runs."""

import pytest
import torch

from rfla.models import build_detector

SMALL = {"backbone": "resnet18", "neck.width": 16, "head.width": 16, "head.depth": 1}
BOXES = torch.tensor([[10.0, 10.0, 18.0, 20.0], [30.0, 30.0, 36.0, 36.0]])
LABELS = torch.tensor([0, 1])
WHOLE = {"boxes": BOXES, "labels": LABELS}
IMAGES = torch.zeros(2, 3, 64, 64)


@pytest.fixture(scope="module")
def net():
    return build_detector("retinanet", 3, "rfla", SMALL).train()


@pytest.mark.parametrize(
    ("targets", "words"),
    [
        ([WHOLE], "targets: one for each of 2 images expected, not 1"),
        ([WHOLE] * 3, "targets: one for each of 2 images expected, not 3"),
        ([WHOLE, {"boxes": BOXES}], r"targets\[1\]: labels expected"),
        ([{}, WHOLE], r"targets\[0\]: boxes and labels expected"),
        ([WHOLE, {"boxes": BOXES, "labels": LABELS[:1]}], r"targets\[1\]: a label for each of 2"),
        (
            [WHOLE, {"boxes": BOXES, "labels": LABELS + 2}],
            "labels from 0 to 2 expected, not 2 to 3",
        ),
        (
            [WHOLE, {"boxes": BOXES, "labels": LABELS - 1}],
            "labels from 0 to 2 expected, not -1 to 0",
        ),
        ([WHOLE, {"boxes": torch.ones(4, 5), "labels": torch.zeros(4)}], r"\['boxes'\]: \(G, 4\)"),
        ([WHOLE, {**WHOLE, "ignore": torch.ones(4, 5)}], r"targets\[1\]\['ignore'\]: \(G, 4\)"),
    ],
)
def test_targets_that_do_not_fit(net, targets, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        net(IMAGES, targets)


def test_sizes_of_another_number_of_images(net) -> None:
    with pytest.raises(ValueError, match="image_sizes: one for each of 2 images expected, not 1"):
        net(IMAGES, [WHOLE, WHOLE], image_sizes=[(64, 64)])


@pytest.mark.parametrize("model", ["fcos", "rfd", "retinanet", "autoassign", "faster_rcnn"])
def test_nothing_to_learn_is_said_in_any_way(model: str) -> None:
    """No box as (0, 4) or as (0,), no region as None: the same losses."""
    torch.manual_seed(0)
    net = build_detector(model, 3, "rfla", SMALL).eval().train()
    none = torch.zeros(0, dtype=torch.int64)
    ways = [
        {"boxes": torch.zeros(0, 4), "labels": none},
        {"boxes": torch.zeros(0), "labels": none, "ignore": None},
        {"boxes": torch.zeros(0), "labels": none, "ignore": torch.zeros(0)},
    ]
    found = []
    for empty in ways:
        torch.manual_seed(1)  # of the samplers
        losses = net(IMAGES + 0.5, [WHOLE, empty])
        found.append({name: loss.item() for name, loss in losses.items()})
    assert found[0] == found[1] == found[2]

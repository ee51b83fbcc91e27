"""Comparing two sets of detections."""

import io
import json

import numpy as np
import pytest
from rich.console import Console

from rfla.metrics import Detections, GroundTruth, find_protocol
from rfla.metrics.compare import ImageChange, compare

PROTOCOL = find_protocol("aitod")


def scene(images=30, seed=0):
    rng = np.random.default_rng(seed)
    count = images * 5
    corner = rng.uniform(0, 500, (count, 2))
    boxes = np.concatenate([corner, corner + rng.uniform(5, 14, (count, 2))], axis=1)
    image = np.repeat(np.arange(images), 5)
    files = tuple(f"{i}.png" for i in range(images))
    gt = GroundTruth(
        tuple(range(images)),
        image,
        boxes,
        np.tile([0, 0, 0, 1, 1], images),
        names=("a", "b"),
        files=files,
    )
    return gt, rng


def some_of(gt, rng, share):
    kept = np.flatnonzero(rng.random(len(gt.labels)) < share)
    return Detections(
        gt.image_index[kept], gt.boxes[kept], rng.uniform(0.3, 0.9, len(kept)), gt.labels[kept]
    )


def test_same_detections_do_not_differ():
    gt, rng = scene()
    found = some_of(gt, rng, 0.7)
    result = compare(gt, found, found, PROTOCOL, draws=20)
    assert all(row.delta == 0 and not row.clear for row in result.figures + result.classes)
    assert all(row.low == row.high == 0 for row in result.classes)
    assert result.changed == []


def test_a_clear_gain_is_told_and_noise_is_not():
    gt, rng = scene()
    poor, good = some_of(gt, rng, 0.4), some_of(gt, rng, 0.9)
    gain = compare(gt, poor, good, PROTOCOL, draws=40).figures[0]
    assert gain.name == "ap"
    assert gain.clear
    assert 0 < gain.low < gain.delta < gain.high
    other = some_of(gt, rng, 0.4)
    assert not compare(gt, poor, other, PROTOCOL, draws=40).figures[0].clear


def test_images_that_changed_are_named():
    """b misses one box of image 3 that a finds, and nothing else differs."""
    gt, _ = scene()
    scores = np.full(len(gt.labels), 0.9)
    everything = Detections(gt.image_index, gt.boxes, scores, gt.labels)
    kept = np.arange(len(scores)) != 17
    less = Detections(gt.image_index[kept], gt.boxes[kept], scores[kept], gt.labels[kept])
    (change,) = compare(gt, everything, less, PROTOCOL, draws=2).changed
    assert (change.image, change.file, change.missed, change.wrong, change.gain) == (
        3,
        "3.png",
        (0, 1),
        (0, 0),
        -1,
    )


def test_gain_by_hand():
    """Missed and wrong count alike: 3 + 4 errors become 1 + 2, and 0 + 2 become 5 + 1."""
    assert ImageChange(1, "1.png", missed=(3, 1), wrong=(4, 2)).gain == 4
    assert ImageChange(1, "1.png", missed=(0, 5), wrong=(2, 1)).gain == -4


def test_tables_and_json_of_a_comparison():
    gt, rng = scene(images=6)
    result = compare(
        gt, some_of(gt, rng, 0.5), some_of(gt, rng, 0.8), PROTOCOL, draws=5, names=("old", "new")
    )
    told = json.loads(json.dumps(result.as_dict()))
    assert [row["name"] for row in told["figures"]][:3] == ["ap", "ap25", "ap50"]
    assert told["figures"][7]["low"] is None  # no box of 32 px
    console = Console(width=80, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(result.table())
    text = console.export_text()
    assert "old" in text
    (medium,) = (line.split() for line in text.splitlines() if line.startswith("APm"))
    assert medium == ["APm", "-", "-", "-"]  # undefined on both sides: no difference of 0
    assert "better in b" in text and "of oLRP less is better" in " ".join(text.split())


def test_one_image_tells_nothing_of_others():
    gt, rng = scene(images=1)
    result = compare(gt, some_of(gt, rng, 0.2), some_of(gt, rng, 0.9), PROTOCOL, draws=20)
    assert result.figures[0].delta > 0.2
    assert not any(row.clear for row in result.figures + result.classes)
    console = Console(width=80, file=io.StringIO())
    console.print(result.table())
    assert "1 image, too few for intervals" in " ".join(console.file.getvalue().split())


def test_the_table_of_two_alike_has_neither_stars_nor_images():
    gt, rng = scene(images=3)
    same = some_of(gt, rng, 0.5)
    console = Console(width=60, file=io.StringIO())
    console.print(compare(gt, same, same, PROTOCOL, draws=5).table())
    assert "*" not in console.file.getvalue() and "Images" not in console.file.getvalue()


@pytest.mark.parametrize("empty", ["a", "both"])
def test_nothing_to_compare(empty):
    gt, rng = scene(images=3)
    nothing = Detections([], [], [], [])
    result = compare(
        gt, nothing, nothing if empty == "both" else some_of(gt, rng, 1), PROTOCOL, draws=3
    )
    assert result.figures[0].delta == pytest.approx(0 if empty == "both" else 1)

"""Judging by a reference engine, and saying where it differs."""

import io
from dataclasses import replace

import numpy as np
import pytest
from rich.console import Console

from rfla.errors import MetricError
from rfla.metrics import Detections, GroundTruth, evaluate_boxes, find_protocol
from rfla.metrics.reference import check_reference, require_engine

BOXES = np.array([[0, 0, 10, 10], [50, 50, 70, 70]], np.float64)


def scene():
    """One car found, one missed, and a false positive."""
    gt = GroundTruth((1,), [0, 0], BOXES, [0, 0], names=("car",))
    found = Detections([0, 0], [[0, 0, 10, 10], [200, 0, 210, 10]], [0.9, 0.5], [0, 0])
    return gt, found


def text_of(table):
    console = Console(width=200, file=io.StringIO())
    console.print(table)
    return console.file.getvalue()


@pytest.mark.parametrize("engine", ["pycocotools", "faster-coco-eval"])
def test_a_reference_that_agrees(engine):
    gt, found = scene()
    metrics = evaluate_boxes(gt, found, "coco")
    check = check_reference(metrics, gt, found, engine)
    figures = {name: (ours, theirs) for name, ours, theirs in check.figures}
    assert figures["ap50"] == pytest.approx((51 / 101, 51 / 101), abs=1e-12)  # recalls 0 to 0.50
    assert figures["ar_100"] == (0.5, 0.5)
    assert "olrp" not in figures
    assert check.largest < 1e-12
    assert f"any precision or recall: {check.largest:.1e}" in text_of(check.table())


def test_a_reference_that_differs():
    """Our precision is changed at one place: the check finds it, and names it."""
    gt, found = scene()
    metrics = evaluate_boxes(gt, found, "aitod")
    precision = metrics.curves.precision.copy()
    precision[metrics.protocol.threshold_index(0.75), 30, 0, 2] -= 0.25
    changed = replace(metrics, curves=replace(metrics.curves, precision=precision))
    check = check_reference(changed, gt, found, "pycocotools")
    assert check.largest == 0.25
    assert check.place == "precision at recall 0.30, IoU 0.75, size t, class car"
    assert "2.5e-01, at precision at recall 0.30, IoU 0.75, size t" in text_of(check.table())


@pytest.mark.parametrize(
    ("engine", "protocol", "message"),
    [
        ("pycocotool", "coco", "unknown engine 'pycocotool': .*did you mean 'pycocotools'"),
        ("pycocotools", "visdrone", "engine=pycocotools: it has no ignored regions"),
        ("pycocotools", "tinyperson", "protocol=aitod or protocol=coco can be checked"),
    ],
)
def test_what_no_reference_can_judge_is_refused(engine, protocol, message):
    with pytest.raises(MetricError, match=message):
        require_engine(engine, find_protocol(protocol))


def test_an_engine_that_is_not_installed(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(MetricError, match="not installed; pip install faster-coco-eval"):
        require_engine("faster-coco-eval", find_protocol("coco"))

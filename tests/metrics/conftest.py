"""A small evaluation whose errors are known, and its report."""

import numpy as np
import pytest

from rfla.metrics import Detections, GroundTruth, find_protocol
from rfla.metrics.analysis import study
from rfla.metrics.html_report import write_report

NASTY = "</script><b>&.png"


def study_of(images=4, per_image=6, dets=8):
    """Image i misses i of its boxes; every third detection is of nothing.

    Class b is of 20 px, class a of 6 px.
    """
    sides = np.where(np.arange(per_image) % 2, 20.0, 6.0)
    left = np.arange(per_image) * 30.0 + 5
    boxes = np.tile(np.stack([left, left, left + sides, left + sides], axis=1), (images, 1))
    image = np.repeat(np.arange(images), per_image)
    labels = np.tile(np.arange(per_image) % 2, images)
    found = np.tile(np.arange(per_image), images) >= image  # the first i are missed
    nothing = np.tile([180.0, 5, 188, 13], (images * (dets // 3), 1))
    count = len(nothing)
    gt = GroundTruth(
        tuple(range(images)),
        image,
        boxes,
        labels,
        names=("a<b>", "b"),
        files=(NASTY, *("x.png",) * (images - 1)),
    )
    detections = Detections(
        np.concatenate([image[found], np.repeat(np.arange(images), dets // 3)]),
        np.concatenate([boxes[found], nothing]),
        np.concatenate([np.full(found.sum(), 0.7), np.full(count, 0.2)]),
        np.concatenate([labels[found], np.zeros(count, np.int64)]),
    )
    return study(gt, detections, find_protocol("aitod"))


def picture(image):
    return np.full((200, 200, 3), 40 * (image % 6), np.uint8)


@pytest.fixture(scope="session")
def make_study():
    """Make an evaluation; see `study_of`."""
    return study_of


@pytest.fixture(scope="session")
def report(tmp_path_factory):
    return write_report(
        tmp_path_factory.mktemp("run") / "val",
        study_of(),
        picture,
        title="A <run>",
        speed={"nms": 1.5432},
    )


@pytest.fixture
def no_figures(monkeypatch):
    monkeypatch.setattr("rfla.metrics.html_report.draw_figures", lambda *_: {})

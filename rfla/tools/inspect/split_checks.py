"""What is wrong with the images and boxes of one split.

Shapes: M boxes of the split.
"""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rfla.data.annotations import (
    GROUP,
    MISSING,
    REFUSED,
    REFUSED_FILES,
    REGIONS,
    UNOPENED,
    Annotations,
    first_place,
)
from rfla.data.images import MORE_IMAGES
from rfla.data.object_sizes import shrunk_objects
from rfla.data.record import is_object
from rfla.data.training_boxes import MIN_SIDE, at_least_min_side, clipped_boxes, repeated_boxes
from rfla.tools.inspect.data_report import DataReport, Finding, Severity
from rfla.tools.inspect.image_summary import ImageSummary, identical_pairs

# Entries of `Annotations.counts` that make a data set unfit as it is; the others are repaired while
# training.
_UNFIT = (REFUSED, REFUSED_FILES, MISSING)
_ROUNDING = 0.01  # px over the border that is rounding of the file


def check_images(
    report: DataReport, split: str, index: Annotations, images: list[ImageSummary]
) -> None:
    """Report what the reader repaired, and images that are unusable, resized, repeated or empty."""
    for what, count in index.counts.items():
        if what == UNOPENED:  # below, with the reason
            continue
        severity: Severity = (
            "error" if what in _UNFIT else "note" if what in (GROUP, REGIONS) else "warning"
        )
        report.add(split, Finding(severity, what, count, index.examples.get(what, "")))
    faults = [image.fault for image in images if image.size is None]
    first = faults[0] if faults else ""
    report.add(split, Finding("error", "images that cannot be used", len(faults), first))
    _check_stated_sizes(report, split, index, images)
    _check_remarks(report, split, index, images)
    twins = identical_pairs(images)
    where = pair_of_files(index, index, twins[0]) if twins else ""
    report.add(split, Finding("warning", "images repeated within the split", len(twins), where))
    empty = int((np.diff(index.box_start) == 0).sum())
    report.add(split, Finding("note", "images without boxes (they train the background)", empty))


def _check_stated_sizes(
    report: DataReport, split: str, index: Annotations, images: list[ImageSummary]
) -> None:
    wrong = [
        row
        for row, image in enumerate(images)
        if image.size and image.size != tuple(index.image_hw[row])
    ]
    where = ""
    if wrong:
        height, width = images[wrong[0]].size or (0, 0)
        stated = "x".join(str(side) for side in index.image_hw[wrong[0]][::-1])
        where = f"{_file(index, wrong[0])} is {width}x{height}, stated {stated}"
    what = "images that were resized after they were annotated (their boxes are scaled)"
    report.add(split, Finding("warning", what, len(wrong), where))


def _check_remarks(
    report: DataReport, split: str, index: Annotations, images: list[ImageSummary]
) -> None:
    """Report files of several pages, of few bits, and without contrast."""
    for what in dict.fromkeys(remark for image in images for remark in image.remarks):
        rows = [row for row, image in enumerate(images) if what in image.remarks]
        severity: Severity = "note" if what == MORE_IMAGES else "warning"
        report.add(split, Finding(severity, what, len(rows), _file(index, rows[0])))


def check_boxes(report: DataReport, split: str, index: Annotations, imgsz: int) -> None:
    """Report boxes that training drops, clips or cannot see, and classes without one.

    Args:
        report: Where to.
        split: Its name.
        index: The split, as it is written.
        imgsz: Long side of the network's input in training, px.
    """
    real = is_object(index)
    if not real.any():
        severity: Severity = "error" if split in ("train", "val") else "warning"
        report.add(split, Finding(severity, "split without a single box", 1))
        return
    for what, found in _faulty_boxes(index).items():
        found = found & real
        where = first_place(index, int(np.argmax(found))) if found.any() else ""
        report.add(split, Finding("warning", what, int(found.sum()), where))
    absent = [
        name for label, name in enumerate(index.names) if not (index.labels[real] == label).any()
    ]
    report.add(split, Finding("warning", "classes without a box", len(absent), ", ".join(absent)))
    shrunk = shrunk_objects(index, imgsz)
    if shrunk is not None:
        report.add(split, Finding("warning", shrunk.what(), shrunk.lost))


def _faulty_boxes(index: Annotations) -> dict[str, NDArray[np.bool_]]:
    """Return the kinds of faults, and which boxes (M,) have each."""
    image_hw = index.image_hw[index.image_index]
    limit = image_hw[:, ::-1].astype(np.float32)
    zero = np.asarray((index.boxes[:, 2:] <= index.boxes[:, :2]).any(axis=1))
    outside = np.asarray(((index.boxes[:, 2:] <= 0) | (index.boxes[:, :2] >= limit)).any(axis=1))
    clipped = clipped_boxes(index)
    kept = at_least_min_side(clipped[:, 2:] - clipped[:, :2], image_hw)
    over = (index.boxes[:, :2] < -_ROUNDING) | (index.boxes[:, 2:] > limit + _ROUNDING)
    return {
        "boxes of zero width or height (dropped from training; a miss in evaluation)": zero,
        f"boxes under {MIN_SIDE:g} px wide or high (dropped from training)": (
            ~kept & ~zero & ~outside
        ),
        "boxes outside their image (dropped from training)": outside,
        "boxes over the border of their image (clipped for training)": over.any(axis=1) & kept,
        "repeated boxes (merged for training)": repeated_boxes(index, clipped) & kept,
    }


def pair_of_files(first: Annotations, second: Annotations, rows: tuple[int, int]) -> str:
    """Return the names of the files of two rows."""
    return f"{_file(first, rows[0])} and {_file(second, rows[1])}"


def _file(index: Annotations, row: int) -> str:
    return Path(str(index.paths[row])).name

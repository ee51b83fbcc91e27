"""Ground truth: made of the annotations of a split, which a COCO file or dict is read into.

COCO boxes are (x, y, width, height) px. Image ids may be integers or strings.
"""

from dataclasses import replace
from pathlib import Path, PurePosixPath

import numpy as np

from rfla.data.annotations import Annotations
from rfla.data.formats import coco, coco_file
from rfla.data.formats.coco_columns import columns_of, corners_of, numbers, sides_of
from rfla.data.formats.coco_file import Content, PlainFile
from rfla.data.record import Classes
from rfla.errors import DataError, MetricError, shorten
from rfla.json_file import collector_at_rest
from rfla.metrics.arrays import BoolArray, FloatArray, GroundTruth
from rfla.metrics.coco_entries import FARTHEST, Record

GroundTruthSource = GroundTruth | Annotations | Record | str | Path

RULES = coco.Rules(flags=("ignore", "uncertain"), to_write=False, needs_files=False)


def ground_truth(annotations: Annotations) -> GroundTruth:
    """Return the boxes of a split as its files state them, in the form that is evaluated."""
    boxes, sides = annotations.boxes.astype(np.float64), None
    if annotations.stated is not None:  # else the training rules have moved the boxes
        boxes, sides = corners_of(annotations.stated), sides_of(annotations.stated)
    return GroundTruth(
        image_ids=tuple(annotations.image_ids.tolist()),
        image_index=annotations.image_index,
        boxes=boxes,
        sides=sides,
        labels=annotations.labels,
        area=annotations.area,
        ignore=annotations.ignore,
        crowd=annotations.crowd,
        names=annotations.names,
        category_ids=annotations.category_ids,
        files=tuple(_file_name(path) for path in annotations.paths.tolist()),
    )


def read_ground_truth(source: GroundTruthSource) -> GroundTruth:
    """Return ground truth from a COCO dict or JSON file (.json or .json.gz), or pass arrays on.

    Annotations may carry `iscrowd`, `ignore` and `uncertain` (TinyPerson; taken as ignore). A
    category of the name "ignored regions" (VisDrone), or an annotation of category 0 that no
    category names, is a region without class.

    Raises:
        MetricError: the file is not COCO ground truth, or an entry cannot be used.
    """
    if isinstance(source, GroundTruth):
        return source
    if isinstance(source, Annotations):
        return ground_truth(source)
    where = str(source) if isinstance(source, str | Path) else "ground truth"
    try:
        with collector_at_rest():
            return _read(source, where)
    except DataError as error:
        raise MetricError(str(error)) from None


def _read(source: Record | str | Path, where: str) -> GroundTruth:
    def use(content: Content) -> GroundTruth:
        classes = _classes(content, where)
        read = coco.annotations(content, where, classes, RULES)
        _refuse_what_cannot_be_judged(content, read, where)
        # A category that no annotation has keeps its id: a detection may have it.
        return ground_truth(replace(read, category_ids=tuple(classes.ids)))

    if isinstance(source, str | Path):
        return coco.use_file(Path(source), use)
    return use(coco.with_boxes(lambda kind: coco_file.from_memory(source, where, kind)))


def _classes(content: Content, where: str) -> Classes:
    """Return the categories in the order of the file; one without a name is called by its id."""
    names, ids = [], []
    for row, entry in enumerate(content.categories or []):
        number = coco_file.whole(entry.id, "id", f"{where}: categories[{row}]")
        entry.name = str(number if entry.name is None else entry.name)
        if number in ids:
            raise DataError(f"{where}: category id {number} is used twice")
        if not coco_file.is_region(entry.name, RULES.regions):
            names.append(entry.name)
            ids.append(number)
    for image in content.images or []:
        image.file_name = "" if image.file_name is None else str(image.file_name)
    return Classes(names, ids)


def _refuse_what_cannot_be_judged(content: Content, read: Annotations, where: str) -> None:
    """Raise MetricError for a box or an area that is none."""
    entries = content.annotations or []
    assert read.stated is not None  # filled by `coco.annotations`
    if not _are_boxes(read.stated).all():
        boxes = columns_of(entries, ()).boxes  # in the order of the file
        bad = np.flatnonzero(~_are_boxes(boxes))
        place = f"{where}: annotations[{bad[0]}]"
        raise MetricError(f"{place}: bbox {shorten(entries[bad[0]].bbox)} {_wrong(boxes[bad[0]])}")
    if isinstance(content, PlainFile):  # all areas are numbers, or missing
        return
    areas = [entry.area for entry in entries]
    for row in np.flatnonzero(np.isnan(numbers(areas))).tolist():
        if areas[row] is not None:
            raise MetricError(
                f"{where}: annotations[{row}]: area {shorten(areas[row])} is not a finite number"
            )


def _are_boxes(boxes: FloatArray) -> BoolArray:
    """Return (M,) True for finite boxes x, y, width, height (M, 4) that are not too far out."""
    near = (np.abs(boxes) <= FARTHEST).all(axis=1)
    return np.asarray(near & (boxes[:, 2:] >= 0).all(axis=1))


def _wrong(box: FloatArray) -> str:
    if np.isnan(box).any():
        return "is not four finite numbers x, y, width, height"
    if (box[2:] < 0).any():
        return "is of a negative side; boxes are x, y, width, height"
    return "is farther than 1e9 px out"


def _file_name(path: str) -> str:
    return PurePosixPath(path.replace("\\", "/")).name

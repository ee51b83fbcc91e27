"""Ground truth in COCO form, from files or from dicts; every mistake is one line.

COCO boxes are (x, y, width, height) px. Image ids may be integers or strings.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from rfla.errors import MetricError
from rfla.json_file import parse_json, read_json_bytes, refuse_repeated_keys
from rfla.metrics.arrays import REGION, GroundTruth, IntArray
from rfla.metrics.coco_entries import Record, box_array, field, number_array, shorten
from rfla.metrics.coco_ids import id_positions

GroundTruthSource = GroundTruth | Record | str | Path


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
    data, where = _load(source)
    lists = ("images", "annotations", "categories")
    if not isinstance(data, Mapping) or not all(isinstance(data.get(key), list) for key in lists):
        raise MetricError(
            f"{where}: not COCO ground truth; it needs lists of images, annotations and categories"
        )
    image_ids = tuple(
        field(image, "id", where, "image", n) for n, image in enumerate(data["images"])
    )
    odd = [image for image in image_ids if not isinstance(image, int | str)]
    if odd:
        raise MetricError(
            f"{where}: an image has the id {shorten(odd[0])}; ids are integers or text"
        )
    if len(set(image_ids)) < len(image_ids):
        raise MetricError(f"{where}: an image id is given twice")
    category_ids = [field(c, "id", where, "category", n) for n, c in enumerate(data["categories"])]
    if not all(isinstance(c, int) for c in category_ids) or len(set(category_ids)) < len(
        category_ids
    ):
        raise MetricError(
            f"{where}: category ids must be integers, each given once; "
            f"they are {shorten(category_ids)}"
        )
    annotations = data["annotations"]
    boxes = box_array(annotations, where, "annotation")
    areas = [
        {"area": w * h} if a.get("area") is None else a
        for a, (w, h) in zip(annotations, boxes[:, 2:], strict=True)
    ]
    image_of = [field(a, "image_id", where, "annotation", n) for n, a in enumerate(annotations)]
    named = [c for c in data["categories"] if not _is_region(c)]
    return GroundTruth(
        image_ids=image_ids,
        image_index=id_positions(image_of, image_ids, "image_id", where, "annotation"),
        boxes=np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1),
        labels=_labels(annotations, data["categories"], where),
        area=number_array(areas, "area", where, "annotation"),
        ignore=np.array(
            [bool(a.get("ignore") or a.get("uncertain")) for a in annotations], np.bool_
        ),
        crowd=np.array([bool(a.get("iscrowd")) for a in annotations], np.bool_),
        names=tuple(str(c.get("name", c["id"])) for c in named),
        category_ids=tuple(c["id"] for c in named),
        sides=boxes[:, 2:],
        files=tuple(str(image.get("file_name", "")) for image in data["images"]),
    )


def _labels(annotations: list[Record], categories: list[Record], where: str) -> IntArray:
    """Return (G,) positions among the categories that are no regions, REGION for those that are."""
    named = [c for c in categories if not _is_region(c)]
    label_of = {c["id"]: REGION for c in categories if _is_region(c)}
    label_of |= {REGION: REGION, 0: REGION} | {c["id"]: label for label, c in enumerate(named)}
    given = [field(a, "category_id", where, "annotation", n) for n, a in enumerate(annotations)]
    labels = np.array(list(label_of.values()), np.int64)
    return labels[id_positions(given, tuple(label_of), "category_id", where, "annotation")]


def _load(source: Any) -> tuple[Any, str]:
    """Return the parsed data and a word for where it came from."""
    if not isinstance(source, str | Path):
        return source, "ground truth"
    data = read_json_bytes(Path(source), MetricError)
    content = parse_json(data, str(source), Any, MetricError)
    annotations = content.get("annotations") if isinstance(content, dict) else None
    if isinstance(annotations, list) and data.count(b'"bbox"') > len(annotations):
        refuse_repeated_keys(data, str(source), MetricError)
    return content, str(source)


def _is_region(category: Record) -> bool:
    return str(category.get("name", "")).lower().replace("-", " ").replace("_", " ") in {
        "ignored regions",
        "ignored",
    }

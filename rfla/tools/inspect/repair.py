"""A repaired copy of a data set, in COCO form. The source is only read."""

import json
import shutil
from collections import Counter
from itertools import chain, count
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from rfla.data.annotations import Annotations
from rfla.data.images import write_image
from rfla.data.record import is_object
from rfla.data.spec import DataSpec
from rfla.tools.inspect.data_report import DataReport
from rfla.tools.inspect.image_summary import ImageSummary
from rfla.tools.output import partial_directory

# of what the source says of itself: not how many images it has, nor where they come from
_STILL_TRUE = ("description", "licence", "license", "homepage", "citation")


def write_repaired(spec: DataSpec, report: DataReport, out: Path) -> Counter[str]:
    """Write `out/images/{split}/`, `out/annotations/{split}.json` and `out/data.yaml`.

    Left out: images that cannot be used, images of `train` that another split holds too, boxes that
    are none, of zero size, outside their image or repeated, and malformed rows. Repaired: boxes
    over the border are clipped, boxes of images that were resized since are scaled.
    `out/repairs.json` counts it all.

    Returns:
        What was left out and repaired, counted.

    Raises:
        DataError: `out` is not empty, or holds the source.
    """
    counts: Counter[str] = Counter()
    if report.unreadable:
        counts["splits that cannot be read left out"] = len(report.unreadable)
    with partial_directory(out, [spec.root]) as folder:
        (folder / "annotations").mkdir()
        for split, index in report.splits.items():
            counts.update(index.counts)
            leaked = _rows_in_other_splits(report) if split == "train" else set[int]()
            content = _write_split(index, report.images[split], leaked, folder, split, counts)
            text = json.dumps(content)
            (folder / "annotations" / f"{split}.json").write_text(text, encoding="utf-8")
        (folder / "data.yaml").write_text(_data_yaml(spec, report), encoding="utf-8")
        (folder / "repairs.json").write_text(json.dumps(dict(counts), indent=1), encoding="utf-8")
    return counts


def splits_left_empty(report: DataReport) -> list[str]:
    """Return the splits of which a repaired copy would hold no image."""
    leaked = _rows_in_other_splits(report)
    kept = {
        split: sum(
            image.size is not None and not (split == "train" and row in leaked)
            for row, image in enumerate(images)
        )
        for split, images in report.images.items()
    }
    return [split for split, count in kept.items() if not count]


def _rows_in_other_splits(report: DataReport) -> set[int]:
    """Return the rows of train whose picture is in another split too."""
    others = {
        image.digest
        for split, images in report.images.items()
        if split != "train"
        for image in images
        if image.digest
    }
    train = report.images.get("train", [])
    return {row for row, image in enumerate(train) if image.digest in others}


def _write_split(
    index: Annotations,
    images: list[ImageSummary],
    leaked: set[int],
    folder: Path,
    split: str,
    counts: Counter[str],
) -> dict[str, Any]:
    """Copy the images of a split; return its annotations as a COCO document."""
    target = folder / "images" / split
    target.mkdir(parents=True)
    content: dict[str, Any] = {"images": [], "annotations": []}
    used: set[str] = set()
    objects = is_object(index)
    for row, image in enumerate(images):
        if image.size is None:
            counts["images that cannot be used left out"] += 1
            continue
        if row in leaked:
            counts["images of train that another split holds too left out"] += 1
            continue
        name = _copy_image(index, row, target, used)
        # of mixed or huge ids the array holds Python's own
        identity, (height, width) = index.image_ids[row : row + 1].tolist()[0], image.size
        content["images"].append(
            {"id": identity, "file_name": name, "height": height, "width": width}
        )
        for entry in _repaired_boxes(index, objects, row, image.size, counts):
            number = len(content["annotations"]) + 1
            content["annotations"].append({"id": number, "image_id": identity, **entry})
    content["categories"] = [
        {"id": identity, "name": name}
        for identity, name in zip(index.category_ids, index.names, strict=True)
    ]
    return content


def _copy_image(index: Annotations, row: int, target: Path, used: set[str]) -> str:
    """Copy one image, or write the part of its file that it is; return its new name."""
    source = Path(str(index.paths[row]))
    suffix = source.suffix if index.window(row) is None else ".png"
    # Images of several directories can share a name, and a made one can be that of another.
    made = (f"{source.stem}-{number}{suffix}" for number in count(2))
    name = next(name for name in chain([source.stem + suffix], made) if name.lower() not in used)
    used.add(name.lower())
    if index.window(row) is None:
        shutil.copyfile(source, target / name)
    else:
        write_image(target / name, index.read_image(row))
    return name


def _repaired_boxes(
    index: Annotations,
    objects: NDArray[np.bool_],
    row: int,
    size: tuple[int, int],
    counts: Counter[str],
) -> list[dict[str, Any]]:
    """Return the boxes of one image as entries of a COCO file.

    Args:
        index: The split.
        objects: (M,) which of its boxes are objects to find.
        row: The image.
        size: Its true height and width, px.
        counts: Where repairs are counted.
    """
    rows = index.rows_of(row)
    height, width = size
    ratio = np.array([width, height]) / index.image_hw[row][::-1]
    scaled = index.boxes[rows].astype(np.float64) * np.tile(ratio, 2)
    clipped = np.clip(scaled, 0, [width, height, width, height])
    labels = index.labels[rows].tolist()
    entries: list[dict[str, Any]] = []
    seen: set[tuple[float, ...]] = set()
    for number, (box, before) in enumerate(zip(clipped, scaled, strict=True)):
        sides = box[2:] - box[:2]
        at = rows.start + number
        key = (labels[number], objects[at], *box.tolist())
        if key in seen:
            counts["repeated boxes left out"] += 1
            continue
        if (sides <= 0).any():
            counts["boxes of zero size or outside left out"] += 1
            continue
        seen.add(key)
        area = float(index.area[at] * ratio.prod())
        if (box != before).any():
            counts["boxes clipped to their image"] += 1
            area = float(sides.prod())
        entries.append(
            {
                "category_id": index.category_ids[labels[number]] if labels[number] >= 0 else -1,
                "bbox": [round(float(value), 4) for value in (*box[:2], *sides)],
                "area": area,
                "iscrowd": int(index.crowd[at]),
                "ignore": int(index.ignore[at]),
            }
        )
    return entries


def _data_yaml(spec: DataSpec, report: DataReport) -> str:
    """Return a data YAML for the copy: its splits, and what the source says of itself."""
    content: dict[str, Any] = {
        split: {"images": f"images/{split}", "annotations": f"annotations/{split}.json"}
        for split in report.splits
    }
    content["names"] = list(report.names)
    known = {
        "protocol": spec.protocol,
        "sizes": spec.sizes,
        "settings": dict(spec.settings),
        "model_settings": {name: dict(keys) for name, keys in spec.model_settings.items()},
    } | {key: value for key, value in spec.info.items() if key in _STILL_TRUE}
    content |= {key: value for key, value in known.items() if value}
    return yaml.safe_dump(content, sort_keys=False, allow_unicode=True)

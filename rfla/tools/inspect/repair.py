"""A repaired copy of a data set, in COCO form. The source is only read."""

import json
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from rfla.data.annotations import Annotations
from rfla.data.spec import DataSpec
from rfla.tools.inspect.data_report import DataReport
from rfla.tools.inspect.looks import Look
from rfla.tools.output import check_target, partial_directory


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
    check_target(out, [spec.root], exist_ok=False)
    looks = report.looks
    held = {
        look.digest
        for split in report.splits
        if split != "train"
        for look in looks[split]
        if look.digest
    }
    leaked = {row for row, look in enumerate(looks.get("train", [])) if look.digest in held}
    counts: Counter[str] = Counter()
    with partial_directory(out) as folder:
        (folder / "annotations").mkdir()
        for split, index in report.splits.items():
            counts.update(index.counts)
            content = _split_content(
                index,
                looks[split],
                leaked if split == "train" else set(),
                folder / "images" / split,
                counts,
            )
            (folder / "annotations" / f"{split}.json").write_text(
                json.dumps(content), encoding="utf-8"
            )
        (folder / "data.yaml").write_text(_data_yaml(spec, report), encoding="utf-8")
        (folder / "repairs.json").write_text(json.dumps(dict(counts), indent=1), encoding="utf-8")
    return counts


def _split_content(
    index: Annotations, looks: list[Look], leaked: set[int], folder: Path, counts: Counter[str]
) -> dict[str, Any]:
    folder.mkdir(parents=True)
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    used: Counter[str] = Counter()
    for row, look in enumerate(looks):
        if look.size is None:
            counts["images that cannot be used left out"] += 1
            continue
        if row in leaked:
            counts["images of train that another split holds too left out"] += 1
            continue
        source = Path(str(index.paths[row]))
        used[source.name] += 1  # images of several directories can share a name
        name = (
            source.name
            if used[source.name] == 1
            else f"{source.stem}-{used[source.name]}{source.suffix}"
        )
        shutil.copyfile(source, folder / name)
        identity = index.image_ids[row].item()
        images.append(
            {"id": identity, "file_name": name, "height": look.size[0], "width": look.size[1]}
        )
        for entry in _boxes(index, row, look.size, counts):
            annotations.append({"id": len(annotations) + 1, "image_id": identity, **entry})
    categories = [
        {"id": identity, "name": name}
        for identity, name in zip(index.category_ids, index.names, strict=True)
    ]
    return {"images": images, "annotations": annotations, "categories": categories}


def _boxes(
    index: Annotations, row: int, size: tuple[int, int], counts: Counter[str]
) -> list[dict[str, Any]]:
    rows = index.rows_of(row)
    ratio = np.array(size[::-1]) / index.image_hw[row][::-1]
    boxes, labels = index.boxes[rows].astype(np.float64) * np.tile(ratio, 2), index.labels[rows]
    clipped = np.clip(boxes, 0, [size[1], size[0], size[1], size[0]])
    entries = []
    seen = set()
    for number, (box, before) in enumerate(zip(clipped, boxes, strict=True)):
        sides = box[2:] - box[:2]
        key = (int(labels[number]), *before.tolist())
        if key in seen or (sides <= 0).any():
            counts[
                "repeated boxes left out"
                if key in seen
                else "boxes of zero size or outside left out"
            ] += 1
            continue
        seen.add(key)
        moved = bool((box != before).any())
        if moved:
            counts["boxes clipped to their image"] += 1
        at = rows.start + number
        area = float(sides.prod()) if moved else float(index.area[at] * ratio.prod())
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
    content: dict[str, Any] = {
        split: {"images": f"images/{split}", "annotations": f"annotations/{split}.json"}
        for split in report.splits
    }
    content["names"] = list(report.names)
    for key, value in (
        ("protocol", spec.protocol),
        ("sizes", spec.sizes),
        ("settings", dict(spec.settings)),
    ):
        if value:
            content[key] = value
    return yaml.safe_dump(content, sort_keys=False, allow_unicode=True)

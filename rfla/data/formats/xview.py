"""xView: one GeoJSON of all scenes.

A feature has `image_id`, `type_id` and `bounds_imcoords` "x1,y1,x2,y2" in px.

Published oddities, handled and counted: types 75 and 82 mean nothing, scene 1395.tif is not there,
`._*.tif` files of a Mac archive are no images. xView's own validation images have no public labels,
so about one scene in ten, fixed by its name, is `val`. Files that are named `{split}.geojson`, as
we write them, hold that split alone.
"""

import json
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from rfla.data.annotations import Annotations
from rfla.data.formats.coco_file import whole
from rfla.data.formats.images import SPLITS, image_folders, root_of
from rfla.data.formats.left_out import LeftOut
from rfla.data.formats.text import as_text, parse_numbers
from rfla.data.record import Classes, ImageRecord, Part, is_object, make_record
from rfla.errors import DataError
from rfla.files import open_regular
from rfla.json_file import parse_json, read_json

TYPES = {
    11: "Fixed-wing Aircraft", 12: "Small Aircraft", 13: "Cargo Plane", 15: "Helicopter",
    17: "Passenger Vehicle", 18: "Small Car", 19: "Bus", 20: "Pickup Truck", 21: "Utility Truck",
    23: "Truck", 24: "Cargo Truck", 25: "Truck w/Box", 26: "Truck Tractor", 27: "Trailer",
    28: "Truck w/Flatbed", 29: "Truck w/Liquid", 32: "Crane Truck", 33: "Railway Vehicle",
    34: "Passenger Car", 35: "Cargo Car", 36: "Flat Car", 37: "Tank car", 38: "Locomotive",
    40: "Maritime Vessel", 41: "Motorboat", 42: "Sailboat", 44: "Tugboat", 45: "Barge",
    47: "Fishing Vessel", 49: "Ferry", 50: "Yacht", 51: "Container Ship", 52: "Oil Tanker",
    53: "Engineering Vehicle", 54: "Tower crane", 55: "Container Crane", 56: "Reach Stacker",
    57: "Straddle Carrier", 59: "Mobile Crane", 60: "Dump Truck", 61: "Haul Truck",
    62: "Scraper/Tractor", 63: "Front loader/Bulldozer", 64: "Excavator", 65: "Cement Mixer",
    66: "Ground Grader", 71: "Hut/Tent", 72: "Shed", 73: "Building", 74: "Aircraft Hangar",
    76: "Damaged Building", 77: "Facility", 79: "Construction Site", 83: "Vehicle Lot",
    84: "Helipad", 86: "Storage Tank", 89: "Shipping container lot", 91: "Shipping Container",
    93: "Pylon", 94: "Tower",
}  # fmt: skip
UNDEFINED = (75, 82)
VAL_SHARE = 10  # one scene in ten


class _Row(NamedTuple):
    """One feature: its box (xyxy px), label, id and line."""

    box: list[float]
    label: int
    number: int
    line: int


def find(source: Path) -> dict[str, Part]:
    """Find `xView_train.geojson` and its scenes: two splits of one file, told apart by scene.

    Raises:
        DataError: There is no GeoJSON file.
    """
    files = (
        [source]
        if source.is_file()
        else sorted([*source.glob("*.geojson"), *source.glob("*/*.geojson")])
    )
    if not files:
        raise DataError(f"source={source}: no .geojson file")
    named = [file for file in files if file.stem in SPLITS]
    if named:
        return {file.stem: Part((file,), image_folders(root_of(file), file.stem)) for file in named}
    root = files[0].parent
    folders = [root / "train_images", root.parent / "train_images", root / "images", root]
    images = tuple(folder for folder in folders if folder.is_dir())
    return {split: Part((files[0],), images, split) for split in ("train", "val")}


def classes_of(parts: Iterable[Part]) -> Classes:
    """Return the 60 types; their category ids are xView's `type_id`."""
    return Classes(list(TYPES.values()), list(TYPES))


def split_of_scene(name: str) -> str:
    """Return the split of a scene: fixed by its name, about one in ten is `val`."""
    return "val" if zlib.crc32(name.encode()) % VAL_SHARE == 0 else "train"


def read(
    part: Part, classes: Classes | None, *, to_write: bool = True, strict: bool = True
) -> Annotations:
    """Read the scenes of a split, sorted by name.

    Features of undefined types are counted in `dropped`.

    Args:
        part: The files of the split.
        classes: The class table; None: what the files of this split name.
        to_write: Ignored: this format reads the same either way.
        strict: Refuse a malformed feature; otherwise leave it out and count it.

    Raises:
        DataError: With file and line, or the number of the feature: what is malformed.
    """
    table = classes_of([part]) if classes is None else classes
    path = part.annotations[0]
    scenes: dict[str, list[_Row]] = {}
    left_out = LeftOut(strict)
    for feature, where, line in _features(path):
        try:
            name, row = _feature(feature, where, table, line)
        except DataError as error:
            left_out.refuse(error)
            continue
        if part.split and split_of_scene(name) != part.split:
            continue
        rows = scenes.setdefault(name, [])
        if row is None:
            left_out.drop("undefined type (75 or 82)", where)
        else:
            rows.append(row)
    keeps_ids = _unique(scenes)
    records = [
        make_record(
            name,
            str(path),
            [row.box for row in scenes[name]],
            [row.label for row in scenes[name]],
            ids=[row.number for row in scenes[name]] if keeps_ids else None,
            lines=[row.line for row in scenes[name]],
        )
        for name in sorted(scenes)
    ]
    return left_out.noted_in(Annotations.of_records(records, table))


def _unique(scenes: dict[str, list[_Row]]) -> bool:
    seen: set[int] = set()
    numbers = [row.number for rows in scenes.values() for row in rows]
    seen.update(numbers)
    return len(seen) == len(numbers) and min(numbers, default=0) >= 0


def _features(path: Path) -> Iterator[tuple[dict[str, Any], str, int]]:
    """Yield features: by lines where each has its own, as in the published file of 1 GB."""
    if _has_lines(path):
        with open_regular(path) as file:
            for number, line in enumerate(file, 1):
                text = line.decode("utf-8", "replace").strip().rstrip(",")
                if text.startswith("{") and '"Feature"' in text:
                    yield _parse(text, f"{path}:{number}"), f"{path}:{number}", number
        return
    content = read_json(path)
    features = content.get("features") if isinstance(content, dict) else None
    if not isinstance(features, list):
        raise DataError(f"{path}: not a GeoJSON file: no list 'features'")
    for row, feature in enumerate(features):
        yield feature, f"{path}: features[{row}]", 0


def _has_lines(path: Path) -> bool:
    """Whether each feature has a line of its own, and each such line one feature."""
    found = False
    with open_regular(path) as file:
        for line in file:
            if b'"Feature"' not in line:
                continue
            text = line.strip().rstrip(b",")
            whole = text.startswith(b"{") and text.endswith(b"}") and not text.endswith(b"]}")
            if not whole or b'"features"' in text or text.count(b'"Feature"') > 1:
                return False
            found = True
    return found


def _parse(text: str, where: str) -> dict[str, Any]:
    content = parse_json(text.encode(), where)
    if not isinstance(content, dict):
        raise DataError(f"{where}: a feature must be an object")
    return content


def _feature(feature: Any, where: str, classes: Classes, line: int) -> tuple[str, _Row | None]:
    """Return the scene of a feature and its box; None for an undefined type."""
    properties = feature.get("properties") if isinstance(feature, dict) else None
    if not isinstance(properties, dict):
        raise DataError(f"{where}: a feature has no properties")
    name = properties.get("image_id")
    if not isinstance(name, str) or not name:
        raise DataError(f"{where}: image_id must be a text such as '5.tif', not {name!r:.60}")
    kind = whole(properties.get("type_id"), "type_id", where)
    if kind in UNDEFINED:
        return name, None
    bounds = properties.get("bounds_imcoords")
    fields = bounds.split(",") if isinstance(bounds, str) else []
    if len(fields) != 4:
        raise DataError(f"{where}: bounds_imcoords must be 'x1,y1,x2,y2', not {bounds!r:.60}")
    stated = properties.get("feature_id")
    number = -1 if stated is None else whole(stated, "feature_id", where)
    return name, _Row(parse_numbers(fields, where), classes.label_of_id(kind, where), number, line)


def write(path: Path, records: Iterable[ImageRecord], classes: Classes) -> Counter[str]:
    """Write one GeoJSON file, a feature in each line.

    Without coordinates on the ground, so its geometries are null.

    Returns:
        What could not be held, counted.

    Raises:
        DataError: A class that is none of xView's.
    """
    types = classes.ids_in({name: number for number, name in TYPES.items()}, "xview")
    lost: Counter[str] = Counter()
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8") as file:
        file.write('{"type": "FeatureCollection", "features": [')
        separator = "\n"
        for record in records:
            objects = record.select(is_object(record))
            lost["ignored boxes (xView cannot hold them)"] += len(record) - len(objects)
            lost["images without objects (xView does not list them)"] += not len(objects)
            for row, box in enumerate(objects.boxes.tolist()):
                properties: dict[str, Any] = {
                    "bounds_imcoords": ",".join(map(as_text, box)),
                    "type_id": types[objects.labels[row]],
                    "image_id": record.file_name,
                }
                if objects.ids[row] >= 0:
                    properties["feature_id"] = int(objects.ids[row])
                feature = {"type": "Feature", "properties": properties, "geometry": None}
                file.write(separator + json.dumps(feature, ensure_ascii=False))
                separator = ",\n"
        file.write("\n]}\n")
    return +lost

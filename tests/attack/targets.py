"""What is attacked: a maker of cases for each kind of file that a stranger may hand over."""

import io
import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import yaml
from harness import Case
from hostile import (
    TEXTS,
    WRITTEN_NUMBERS,
    change_bytes,
    change_document,
    change_json,
    change_rows,
    to_bytes,
    value,
    yaml_value,
)
from PIL import Image

from rfla.cfg import Config, load_config
from rfla.cfg.keys import keys_of
from rfla.data import load_data_spec, load_index

KEYS = [key for key in keys_of(Config) if key != "debug"]  # which asks for a traceback
SIDE = 48


def painted() -> bytes:
    """A PNG of noise."""
    pixels = np.random.default_rng(0).integers(0, 255, (SIDE, SIDE, 3), dtype=np.uint8)
    return encoded(pixels, "PNG")


def encoded(pixels: np.ndarray, format: str, **options: Any) -> bytes:
    """An image file."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, format, **options)
    return file.getvalue()


PICTURE = painted()
COCO = {
    "images": [
        {"id": i + 1, "file_name": f"{i}.png", "width": SIDE, "height": SIDE} for i in range(2)
    ],
    "annotations": [
        {
            "id": i + 1,
            "image_id": i % 2 + 1,
            "category_id": i % 2 + 1,
            "bbox": [3 * i, 4, 6, 5],
            "area": 30,
            "iscrowd": 0,
            "segmentation": [[3 * i, 4, 3 * i + 6, 4, 3 * i + 6, 9]],
        }
        for i in range(6)
    ],
    "categories": [{"id": 1, "name": "car"}, {"id": 2, "name": "ship"}],
}
DETECTIONS = [
    {"image_id": 1 + i % 2, "category_id": 1 + i % 2, "bbox": [i, i, 9, 9], "score": i / 12}
    for i in range(12)
]
DATA_YAML = {
    "path": ".",
    "train": {"images": "images", "annotations": "train.json"},
    "val": {"images": "images", "annotations": "train.json"},
    "names": ["car", "ship"],
    "protocol": "coco",
    "sizes": {"vt": [0, 8], "t": [8, 16]},
    "settings": {"imgsz": 64},
}
DATA_KEYS = [*DATA_YAML, "nc", "images", "splits", "generator", "download", "channels", "format"]
DATA_FILES = {
    "images/0.png": PICTURE,
    "images/1.png": PICTURE,
    "train.json": json.dumps(COCO).encode(),
    "data.yaml": yaml.safe_dump(DATA_YAML, sort_keys=False).encode(),
}


def read_data(directory: Path) -> None:
    """Read `data.yaml` and the index of both splits, as training and validation do."""
    spec = load_data_spec(str(directory / "data.yaml"))
    load_config({"model": "fcos_p2", "data": str(directory / "data.yaml")}, mode="train")
    for split in ("train", "val"):
        load_index(spec, split, for_training=split == "train")


def require_finite(settings: Mapping[str, Any]) -> None:
    """Fail where a setting is NaN or infinite."""
    for key, setting in settings.items():
        if isinstance(setting, Mapping):
            require_finite(setting)
        for number in setting if isinstance(setting, (list, tuple)) else (setting,):
            assert not isinstance(number, float) or math.isfinite(number), f"{key}={setting}"


# Settings, on the command line and in YAML


def make_settings(random: Random) -> Case:
    text = ""
    for _ in range(random.choice([1, 1, 1, 2, 5])):
        key, written = random.choice(KEYS), yaml_value(random)
        section, _, name = key.partition(".")
        nested = name and random.random() < 0.7
        text += f"{section}:\n  {name}: {written}\n" if nested else f"{key}: {written}\n"
    content = to_bytes(text)
    if random.random() < 0.1:
        content = change_bytes(random, content)

    def read(directory: Path) -> None:
        config = load_config({"cfg": str(directory / "s.yaml"), "model": "fcos_p2"})
        require_finite(config.model_dump())

    if random.random() < 0.5:
        return Case({"s.yaml": content}, ("cfg", "cfg=s.yaml"))
    return Case({"s.yaml": content}, call=read)


def make_tokens(random: Random) -> Case:
    tokens = []
    for _ in range(random.choice([1, 2, 3, 6])):
        key = random.choice(KEYS) if random.random() < 0.8 else random.choice([*TEXTS, "lr", "--"])
        monster = random.choice(["[" * 5000, "(" * 90, "1" * 9999, "-" * 3000, "9**9**9", "[1,"])
        written = random.choice([str(value(random)), yaml_value(random), monster])
        form = random.choice(["{0}={1}", "{0}", "--{0} {1}", "--{0}", "={1}", "{0} = {1}"])
        tokens.append(form.format(key, written))
    return Case(command=("cfg", *tokens))


# Data sets


def make_data_yaml(random: Random) -> Case:
    if random.random() < 0.5:
        text = json.dumps(change_document(random, DATA_YAML))  # JSON is YAML
    else:
        key = random.choice(DATA_KEYS)
        lines = [f"{k}: {json.dumps(v)}" for k, v in DATA_YAML.items() if k != key]
        text = "\n".join([*lines, f"{key}: {yaml_value(random)}"])
    return Case({**DATA_FILES, "data.yaml": to_bytes(text)}, call=read_data)


def make_coco(random: Random) -> Case:
    files = {**DATA_FILES, "train.json": change_json(random, COCO)}
    if random.random() < 0.8:
        return Case(files, call=read_data)
    files["found.json"] = json.dumps(DETECTIONS).encode()
    return Case(files, ("val", "predictions=found.json", "data=data.yaml", "plots=false"))


def make_predictions(random: Random) -> Case:
    files = {**DATA_FILES, "found.json": change_json(random, DETECTIONS)}
    return Case(files, ("val", "predictions=found.json", "data=data.yaml", "plots=false"))


def make_list(random: Random) -> Case:
    places = ["/etc/passwd", "list.txt", "/dev/zero", "/proc/self/mem", "/proc/self/maps", "*.png"]
    places += ["images/0.png", "/", ".", "//", "~root/x", "x" * 5000, *TEXTS]
    lines = [random.choice(places) for _ in range(random.randint(1, 4))]
    content = to_bytes("\n".join(lines))
    yaml_text = "train: list.txt\nval: list.txt\nnames: [car, ship]\n"
    files = {**DATA_FILES, "list.txt": content, "data.yaml": yaml_text.encode()}
    return Case(files, call=read_data)


# Annotations of other tools, through `rfla convert`


def make_conversion(random: Random) -> Case:
    name = random.choice(list(FORMATS))
    to = random.choice(["coco", "coco", "yolo", "csv", "voc", "dota"])
    tokens = ("convert", f"format={name}", "source=in", "out=out", f"to={to}", "workers=1")
    tile = ("tile=32",) if random.random() < 0.3 else ()
    files = {f"in/{path}": content for path, content in FORMATS[name](random).items()}
    return Case(files, (*tokens, *tile))


def _with_images(files: dict[str, bytes], folder: str = "images/train") -> dict[str, bytes]:
    return {f"{folder}/a.png": PICTURE, f"{folder}/b.png": PICTURE, **files}


def _yolo(random: Random) -> dict[str, bytes]:
    rows = [["0", "0.5", "0.5", "0.1", "0.1"], ["1", "0.2", "0.3", "0.1", "0.2"]]
    names = json.dumps(random.choice([["car", "ship"], ["car", random.choice(TEXTS)]]))
    return _with_images(
        {
            "labels/train/a.txt": change_rows(random, rows, " "),
            "data.yaml": f"train: images/train\nnames: {names}\n".encode(),
        }
    )


def _voc(random: Random) -> dict[str, bytes]:
    laughs = "".join(
        f'<!ENTITY b{i} "{(f"&b{i - 1};" if i else "ha") * 10}">'  # a billion laughs
        for i in range(10)
    )
    head = random.choice(
        [
            "",
            "",
            f"<!DOCTYPE z [{laughs}]>",
            '<!DOCTYPE z [<!ENTITY b9 SYSTEM "file:///etc/passwd">]>',
            '<!DOCTYPE z SYSTEM "http://127.0.0.1:9/x.dtd">',
            '<?xml version="1.0" encoding="utf-7"?>',
        ]
    )
    name = "&b9;" if "b9" in head else random.choice(["car", "</name>", "&#27;[31m", "<b/>"])
    sides = ["3", "4", "10", "12"]
    if random.random() < 0.5:
        sides = [random.choice(WRITTEN_NUMBERS) for _ in sides]
    box = "<xmin>{}</xmin><ymin>{}</ymin><xmax>{}</xmax><ymax>{}</ymax>".format(*sides)
    size = (
        f"<size><width>{random.choice(['48', *WRITTEN_NUMBERS])}</width><height>48</height></size>"
    )
    item = f"<object><name>{name}</name><bndbox>{box}</bndbox></object>"
    file_name = random.choice(["a.png", random.choice(TEXTS)])
    deep = "<q>" * random.choice([0, 0, 3000])
    text = f"{head}<annotation><filename>{file_name}</filename>{size}{item}{deep}</annotation>"
    content = to_bytes(text)
    if random.random() < 0.2:
        content = change_bytes(random, content)
    return _with_images({"annotations/train/a.xml": content})


def _cvat(random: Random) -> dict[str, bytes]:
    numbers = [random.choice(WRITTEN_NUMBERS) if random.random() < 0.2 else "9" for _ in range(8)]
    corners = 'xtl="{}" ytl="3" xbr="{}" ybr="12" rotation="{}"'.format(*numbers)
    shapes = [
        f'<box label="car" {corners} occluded="{numbers[3]}"/>',
        f'<polygon label="car" points="1,1;{numbers[4]},2;3,{numbers[5]}"/>',
        f'<mask label="car" left="1" top="2" width="{numbers[6]}" height="5" rle="1,2"/>',
        random.choice(["<points/>", "<tag/>", "<box/>", "<polygon points=''/>", "<q>" * 3000]),
    ]
    image = f'<image name="{random.choice(["a.png", "&#27;.png", "../../x", "~n/x"])}"'
    subset = random.choice(["", 'subset="Train"', 'subset="../.."'])
    frame = f'<track label="car"><box frame="{numbers[7]}" outside="0" {corners}/></track>'
    size = f'width="{random.choice(["48", *WRITTEN_NUMBERS])}" height="48"'
    body = f"{image} {subset} {size}>{''.join(shapes)}</image>{frame}"
    content = to_bytes(f"<annotations>{body}</annotations>")
    if random.random() < 0.3:
        content = change_bytes(random, content)
    return _with_images({"annotations/train.xml": content})


def _csv(random: Random) -> dict[str, bytes]:
    rows = [
        ["image_path", "xmin", "ymin", "xmax", "ymax", "label"],
        ["images/train/a.png", "3", "4", "10", "12", "car"],
        [random.choice(["images/train/b.png", *TEXTS]), "3", "4", "10", "12", "ship"],
    ]
    return _with_images({"train.csv": change_rows(random, rows, random.choice(",;\t"))})


def _dota(random: Random) -> dict[str, bytes]:
    rows = [["3", "4", "10", "4", "10", "12", "3", "12", "car", "0"]]
    return _with_images({"labelTxt/train/a.txt": change_rows(random, rows * 2, " ")})


def _visdrone(random: Random) -> dict[str, bytes]:
    rows = [["3", "4", "10", "12", "1", "4", "0", "0"], ["3", "4", "10", "12", "0", "0", "0", "0"]]
    content = change_rows(random, rows, ",")
    return _with_images({"train/annotations/a.txt": content}, "train/images")


def _json_of(path: str) -> Callable[[Random], dict[str, bytes]]:
    def make(random: Random) -> dict[str, bytes]:
        images = {"images/0.png": PICTURE, "images/1.png": PICTURE}
        return {path: change_json(random, COCO), **images}

    return make


def _xview(random: Random) -> dict[str, bytes]:
    item = {"image_id": "a.png", "bounds_imcoords": "3,4,10,12", "type_id": 18, "feature_id": 1}
    features = [{"type": "Feature", "geometry": None, "properties": item} for _ in range(3)]
    content = change_json(random, {"type": "FeatureCollection", "features": features})
    return _with_images({"annotations/train.geojson": content})


FORMATS: dict[str, Callable[[Random], dict[str, bytes]]] = {
    "yolo": _yolo,
    "voc": _voc,
    "csv": _csv,
    "cvat": _cvat,
    "dota": _dota,
    "visdrone": _visdrone,
    "coco": _json_of("annotations/train.json"),
    "tinyperson": _json_of("annotations/train.json"),
    "soda": _json_of("annotations/train.json"),
    "xview": _xview,
}

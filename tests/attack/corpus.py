"""What attacks have found, or could have: each of these once ended in a traceback, hung, or burst.

Each is a case of `harness.py`, by a name that says what it is.
"""

import json
import struct
import zlib
from typing import Any

import numpy as np
from binaries import CHECKPOINTS, IMAGES, import_of
from harness import Case
from targets import COCO, DATA_FILES, DETECTIONS, PICTURE, encoded, read_data

VAL = ("val", "predictions=found.json", "data=data.yaml", "plots=false")
PREDICT = ("predict", "model=w.safetensors", "save=false", "device=cpu")


def coco(where: tuple[Any, ...], written: str) -> Case:
    """The COCO file of a data set with one value replaced by this JSON text."""
    document = json.loads(json.dumps(COCO))
    at = document
    for key in where[:-1]:
        at = at[key]
    at[where[-1]] = "REPLACE"
    text = json.dumps(document).replace('"REPLACE"', written)
    return Case({**DATA_FILES, "train.json": text.encode()}, call=read_data)


def data_yaml(text: str, files: dict[str, bytes] | None = None) -> Case:
    """A data set with lines of its YAML replaced."""
    base = "train: {images: images, annotations: train.json}\n"
    content = (base + "val: {images: images, annotations: train.json}\n" + text).encode()
    return Case({**DATA_FILES, **(files or {}), "data.yaml": content}, call=read_data)


def convert(format: str, files: dict[str, bytes]) -> Case:
    inside = {f"in/{path}": content for path, content in files.items()}
    tokens = ("convert", f"format={format}", "source=in", "out=out", "to=coco", "workers=1")
    return Case(inside, tokens)


def predictions(text: str) -> Case:
    return Case({**DATA_FILES, "found.json": text.encode()}, VAL)


def png(width: int, height: int, pixels: bytes) -> bytes:
    """A PNG that states a size, with these bytes as its unpacked pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(pixels, 9)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def image(data: bytes, suffix: str = "png") -> Case:
    """An image of a data set, read for its size and its pixels by a conversion into tiles."""
    tokens = ("convert", "format=yolo", "source=in", "out=out", "to=coco", "tile=32", "workers=1")
    files = {
        f"in/images/train/a.{suffix}": data,
        "in/images/train/b.png": PICTURE,
        "in/labels/train/a.txt": b"0 0.5 0.5 0.2 0.2\n",
        "in/labels/train/b.txt": b"0 0.5 0.5 0.2 0.2\n",
        "in/data.yaml": b"train: images/train\nnames: [car]\n",
    }
    return Case(files, tokens)


DEEP = "[" * 100_000
BOX = ("annotations", 0, "bbox")
ROW = b"0 0.5 0.5 0.1 0.1\n"
YOLO = {"images/train/a.png": PICTURE, "labels/train/a.txt": ROW}

CORPUS: dict[str, Case] = {
    "coco: deep box": coco(BOX, DEEP),
    "coco: deep and closed": coco(BOX, "[" * 2000 + "]" * 2000),
    "coco: number of 5,000 digits": coco(("annotations", 0, "area"), "9" * 5000),
    "coco: id of 400 digits": coco(("annotations", 0, "image_id"), "9" * 400),
    "coco: width of 2^32": coco(("images", 0, "width"), str(2**32)),
    "coco: width of 50,000 for 48 px": coco(("images", 0, "width"), "50000"),
    "coco: negative width": coco(("images", 0, "width"), "-5"),
    "coco: half a surrogate pair in a name": coco(("categories", 0, "name"), '"\\ud800"'),
    "coco: half a surrogate pair in a file": coco(("images", 0, "file_name"), '"\\ud800.png"'),
    "coco: NUL in a file": coco(("images", 0, "file_name"), '"a\\u0000b.png"'),
    "coco: home of nobody": coco(("images", 0, "file_name"), '"~nobody42/x.png"'),
    "coco: device as a file": coco(("images", 0, "file_name"), '"/dev/zero"'),
    "coco: markup in a name": coco(("categories", 0, "name"), '"[/red]"'),
    "coco: infinite box": coco(BOX, "[0, 0, Infinity, 1e999]"),
    "coco: huge box": coco(BOX, "[-1e308, 0, 1e308, 1e308]"),
    "coco: odd polygon": coco(("annotations", 0, "segmentation"), "[[1, 2, 3], null, [NaN]]"),
    "coco: mask of 2^40 px": coco(
        ("annotations", 0, "segmentation"), '{"size": [1048576, 1048576], "counts": [0, 5]}'
    ),
    "names: number of names": data_yaml("nc: 10000000000\n"),
    "names: what YAML makes of words": data_yaml("names: [no, yes, null, 010, 12:30]\n"),
    "names: markup": data_yaml('names: ["[/red]", "[bold]"]\n'),
    "path: home of nobody": data_yaml("path: ~nobody42/x\nnames: [car, ship]\n"),
    "path: NUL": data_yaml('path: "a\\0b"\nnames: [car, ship]\n'),
    "sizes: huge": data_yaml("names: [car, ship]\nsizes: {t: [0, 1e400]}\n"),
    "yaml: deep": data_yaml("names: " + "[" * 3000 + "\n"),
    "yaml: code": data_yaml("names: !!python/object/apply:os.system ['touch canary']\n"),
    "yaml: a run is steered": data_yaml("names: [car, ship]\nsettings: {project: /victim}\n"),
    "yaml: painted elsewhere": data_yaml("generator: demo\npath: ../../..\n"),
    "predictions: deep": predictions(DEEP),
    "predictions: number of 5,000 digits": predictions('[{"image_id": ' + "9" * 5000 + "}]"),
    "predictions: no list": predictions('{"a": 1}'),
    "predictions: half a surrogate pair": predictions(
        json.dumps([{**DETECTIONS[0], "image_id": "\ud800"}])
    ),
    "predictions: infinite score": predictions('[{"image_id": 1, "score": Infinity}]'),
    "yolo: class of 400 digits": convert("yolo", {**YOLO, "labels/train/a.txt": b"9" * 400 + ROW}),
    "yolo: infinite box": convert("yolo", {**YOLO, "labels/train/a.txt": b"0 inf nan 1e308 1\n"}),
    "voc: billion laughs": convert(
        "voc",
        {
            "images/train/a.png": PICTURE,
            "annotations/train/a.xml": b'<!DOCTYPE z [<!ENTITY a "'
            + b"x" * 100_000
            + b'"><!ENTITY b "'
            + b"&a;" * 10_000
            + b'">]><annotation><filename>&b;</filename></annotation>',
        },
    ),
    "voc: deep": convert(
        "voc", {"images/train/a.png": PICTURE, "annotations/train/a.xml": b"<q>" * 100_000}
    ),
    "csv: formula and escape": convert(
        "csv",
        {
            "a.png": PICTURE,
            "train.csv": b"image_path,xmin,ymin,xmax,ymax,label\n"
            b"a.png,1,1,9,9,=cmd|' /C calc'!A0\na.png,1,1,9,9,\x1b[31mred\n",
        },
    ),
    "image: 30,000 x 30,000": image(png(30_000, 30_000, b"")),
    "image: 4 GiB in 4 MiB": image(png(64, 64, bytes(1 << 26))),
    "image: no pixels": image(png(0, 0, b"")),
    "image: text": image(b"no image at all"),
    "image: 16 bit": image(encoded(np.full((40, 40), 4095, np.uint16), "PNG")),
    "image: name of another format": image(IMAGES["jp2"], "jpg"),
    "tokens: setting as a list of lists": Case(command=("cfg", "imgsz=" + "[" * 5000)),
    "tokens: number of 9,999 digits": Case(command=("cfg", "imgsz=" + "1" * 9999)),
    "tokens: home of nobody": Case(command=("cfg", "project=~nobody42/x")),
    "tokens: NUL": Case(command=("cfg", "project=a\x00b")),
    "tokens: model in no home": Case(command=("info", "model=~nobody42/x.safetensors")),
    "tokens: data in no home": Case(command=("inspect", "data=~nobody42/x")),
    "source: a name of 254 letters": Case(command=("cfg", "source=" + "x" * 254 + ".png")),
    "format: from a directory that is none": Case(
        command=("convert", "format=coco", "source=~n/x")
    ),
    **{f"checkpoint {number}": import_of(data) for number, data in enumerate(CHECKPOINTS)},
}

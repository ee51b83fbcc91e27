"""One small data set, painted and written in every format as its publishers lay it out.

The training split has an image with objects of each kind, an image without objects, an image
without a label file and an image that cannot be read; every image is 64 px. Where the format can
say so, there is an ignored region, a crowd, a difficult object and a polygon.
"""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

SIDE = 64
# Name -> boxes x1, y1, x2, y2, class; None for an image without a label file.
Boxes = list[tuple[int, int, int, int, int]]
SPLITS: dict[str, dict[str, Boxes | None]] = {
    "train": {
        "many": [(4, 4, 12, 12, 0), (20, 6, 30, 14, 1), (40, 40, 47, 50, 0), (8, 40, 16, 47, 1)],
        "some": [(10, 10, 18, 19, 1), (33, 20, 41, 30, 0)],
        "empty": [],
        "unlabelled": None,
        "unreadable": [(5, 5, 15, 15, 0)],
    },
    "val": {"seen": [(6, 6, 15, 14, 0), (30, 30, 40, 38, 1)], "also": [(20, 20, 28, 29, 0)]},
}
REGION = (50, 2, 62, 14)  # of the image "many"; nothing in it is counted


def write_images(directory: Path, images: dict[str, Boxes | None]) -> None:
    """Paint bright boxes on noise; the image "unreadable" is no image."""
    directory.mkdir(parents=True)
    for number, (name, boxes) in enumerate(images.items()):
        random = np.random.default_rng(number)
        pixels = random.integers(0, 90, (SIDE, SIDE, 3), dtype=np.uint8)
        for x1, y1, x2, y2, label in boxes or []:
            pixels[y1:y2, x1:x2] = (255, 200 * label, 40)
        Image.fromarray(pixels).save(directory / f"{name}.png")
        if name == "unreadable":
            (directory / f"{name}.png").write_bytes(b"\x89PNG\r\n\x1a\n and no more")


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def labelled(images: dict[str, Boxes | None]) -> dict[str, Boxes]:
    return {name: boxes for name, boxes in images.items() if boxes is not None}


def coco_document(split: str, categories: list[str]) -> dict:
    """COCO JSON with a polygon, a crowd and an ignored box; images without labels are not in it."""
    images, annotations = [], []
    for name, boxes in labelled(SPLITS[split]).items():
        images.append(
            {"id": len(images) + 1, "file_name": f"{name}.png", "width": SIDE, "height": SIDE}
        )
        for x1, y1, x2, y2, label in boxes:
            polygon = [x1, y1, x2, y1, x2, y2, x1, y2]
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": len(images),
                    "category_id": label + 1,
                    "bbox": [x1, y1, x2 - x1, y2 - y1],
                    "area": (x2 - x1) * (y2 - y1),
                    "iscrowd": 0,
                    "segmentation": [polygon],
                }
            )
    for image, key in ((1, "iscrowd"), (1, "ignore")):
        annotations.append(
            {
                "id": len(annotations) + 1,
                "image_id": image,
                "category_id": 1,
                "bbox": [REGION[0], REGION[1], 12, 12],
                "area": 144,
                "iscrowd": 0,
                key: 1,
            }
        )
    named = [{"id": number + 1, "name": name} for number, name in enumerate(categories)]
    return {"images": images, "annotations": annotations, "categories": named}


def write_coco(root: Path) -> None:
    for split, images in SPLITS.items():
        write_images(root / "images" / split, images)
        document = coco_document(split, ["car", "ship"])
        write(root / "annotations" / f"{split}.json", json.dumps(document))


def write_yolo(root: Path) -> None:
    for split, images in SPLITS.items():
        write_images(root / "images" / split, images)
        for name, boxes in labelled(images).items():
            rows = []
            for x1, y1, x2, y2, c in boxes:
                shares = [(x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1]
                rows.append(" ".join(str(number) for number in [c, *(s / SIDE for s in shares)]))
            if name == "some":  # one as a polygon
                rows.append("0 0.1 0.8 0.25 0.8 0.25 0.95 0.1 0.95")
            write(root / "labels" / split / f"{name}.txt", "\n".join(rows))
    write(root / "data.yaml", "train: images/train\nval: images/val\nnames: [car, ship]\n")


def write_voc(root: Path) -> None:
    everything = {name: boxes for images in SPLITS.values() for name, boxes in images.items()}
    write_images(root / "JPEGImages", everything)
    for split, images in SPLITS.items():
        write(root / "ImageSets" / "Main" / f"{split}.txt", "\n".join(labelled(images)))
    for name, boxes in labelled(everything).items():
        items = ""
        for number, (x1, y1, x2, y2, label) in enumerate(boxes):
            difficult = int(name == "many" and number == 3)
            corners = f"<xmin>{x1}</xmin><ymin>{y1}</ymin><xmax>{x2}</xmax><ymax>{y2}</ymax>"
            items += f"<object><name>{['car', 'ship'][label]}</name>"
            items += f"<difficult>{difficult}</difficult><bndbox>{corners}</bndbox></object>"
        size = f"<size><width>{SIDE}</width><height>{SIDE}</height><depth>3</depth></size>"
        text = f"<annotation><filename>{name}.png</filename>{size}{items}</annotation>"
        write(root / "Annotations" / f"{name}.xml", text)


def write_csv(root: Path) -> None:
    for split, images in SPLITS.items():
        write_images(root / "images" / split, images)
        rows = ["image_path,xmin,ymin,xmax,ymax,label,ignore"]
        for name, boxes in labelled(images).items():
            rows += [
                f"{name}.png,{x1},{y1},{x2},{y2},{['car', 'ship'][c]},0"
                for x1, y1, x2, y2, c in boxes
            ]
        if split == "train":
            rows.append("many.png,{},{},{},{},,1".format(*REGION))
        write(root / f"{split}.csv", "\n".join(rows) + "\n")


def write_cvat(root: Path) -> None:
    """A project of CVAT: one file, whose images name their subset."""
    items = ""
    for split, images in SPLITS.items():
        subset = {"train": "Train", "val": "Validation"}[split]
        write_images(root / "images" / subset, images)
        for number, (name, boxes) in enumerate(labelled(images).items()):
            shapes = ""
            for x1, y1, x2, y2, c in boxes:
                corners = f'xtl="{x1}" ytl="{y1}" xbr="{x2}" ybr="{y2}"'
                shapes += f'<box label="{["car", "ship"][c]}" occluded="0" {corners}/>'
            if name == "some":
                shapes += '<polygon label="car" points="6,50;16,50;16,60;6,60"/>'
                shapes += '<points label="car" points="3,3"/>'
            size = f'width="{SIDE}" height="{SIDE}" subset="{subset}"'
            items += f'<image id="{number}" name="{name}.png" {size}>{shapes}</image>'
    labels = "<labels><label><name>car</name></label><label><name>ship</name></label></labels>"
    meta = f"<meta><project>{labels}</project></meta>"
    write(root / "annotations.xml", f"<annotations>{meta}{items}</annotations>")


def write_visdrone(root: Path) -> None:
    for split, images in SPLITS.items():
        folder = root / f"VisDrone2019-DET-{split}"
        write_images(folder / "images", images)
        for name, boxes in labelled(images).items():
            rows = [f"{x1},{y1},{x2 - x1},{y2 - y1},1,{4 + c},0,0" for x1, y1, x2, y2, c in boxes]
            if name == "many":
                rows.append(f"{REGION[0]},{REGION[1]},12,12,0,0,0,0")
            write(folder / "annotations" / f"{name}.txt", "\n".join(rows))


def write_dota(root: Path) -> None:
    for split, images in SPLITS.items():
        write_images(root / split / "images", images)
        for name, boxes in labelled(images).items():
            rows = ["imagesource:GoogleEarth", "gsd:0.1"]
            for number, (x1, y1, x2, y2, c) in enumerate(boxes):
                difficult = int(name == "many" and number == 3)
                corners = f"{x1} {y1} {x2} {y1} {x2} {y2} {x1} {y2}"
                rows.append(f"{corners} {['small-vehicle', 'ship'][c]} {difficult}")
            write(root / split / "labelTxt-v1.0" / f"{name}.txt", "\n".join(rows))


def write_soda(root: Path) -> None:
    for split, images in SPLITS.items():
        write_images(root / "Images" / split, images)
        document = coco_document(split, ["car", "ship", "ignore"])
        for annotation in document["annotations"][-2:]:
            annotation.update(category_id=3, iscrowd=0)
        write(root / "Annotations" / f"{split}.json", json.dumps(document))


def write_xview(root: Path) -> None:
    for split, images in SPLITS.items():
        write_images(root / "images" / split, images)
        features = []
        for name, boxes in labelled(images).items():
            for x1, y1, x2, y2, c in boxes:
                item = {"image_id": f"{name}.png", "bounds_imcoords": f"{x1},{y1},{x2},{y2}"}
                item |= {"type_id": (18, 40)[c], "feature_id": len(features) + 1}
                features.append({"type": "Feature", "geometry": None, "properties": item})
        document = {"type": "FeatureCollection", "features": features}
        write(root / "annotations" / f"{split}.geojson", json.dumps(document))


def write_tinyperson(root: Path) -> None:
    for split, images in SPLITS.items():
        write_images(root / "images" / split, images)
        document = coco_document(split, ["sea_person", "earth_person"])
        document["annotations"][-1]["uncertain"] = True
        write(root / "annotations" / f"{split}.json", json.dumps(document))


FORMATS: dict[str, Callable[[Path], None]] = {
    "coco": write_coco,
    "csv": write_csv,
    "cvat": write_cvat,
    "dota": write_dota,
    "soda": write_soda,
    "tinyperson": write_tinyperson,
    "visdrone": write_visdrone,
    "voc": write_voc,
    "xview": write_xview,
    "yolo": write_yolo,
}

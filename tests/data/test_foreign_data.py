"""Data sets as other tools write them: paths, ids, masks, layouts, names; and what is refused."""

import json
import os
from pathlib import Path
from urllib.parse import quote

import numpy as np
import pytest

from rfla.data import load_data_spec, load_index
from rfla.data.annotations import GROUP
from rfla.data.formats import FORMATS
from rfla.data.formats.masks import box_of
from rfla.data.images import write_image
from rfla.data.index import require_objects
from rfla.errors import DataError


def picture(path: Path, height: int = 20, width: int = 30) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_image(path, np.full((height, width, 3), 90, np.uint8))
    return path


def coco_file(path: Path, names: list[str], **annotation) -> Path:
    """One 30 x 20 px image and one 5 x 6 px box for each name."""
    images = [
        {"id": row + 1, "file_name": name, "width": 30, "height": 20}
        for row, name in enumerate(names)
    ]
    boxes = [
        {"id": image["id"], "image_id": image["id"], "category_id": 1, "bbox": [1, 2, 5, 6]}
        | annotation
        for image in images
    ]
    content = {"images": images, "annotations": boxes, "categories": [{"id": 1, "name": "car"}]}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    return path


WRITTEN = [
    "images\\train\\a b.png",  # Windows
    "..\\..\\label-studio\\media\\upload\\4\\a b.png",
    "C:\\Users\\x\\train\\a b.png",
    "/data/upload/4/a b.png",
    "/data/upload/4/0a1b2c3d-a b.png",
    "/data/local-files/?d=train/" + quote("a b.png"),
    quote("train/a b.png"),
    "images/1/a b.png",
    "a b.jpg",  # another suffix
    "./train/a b.png",
]


@pytest.mark.parametrize("written", WRITTEN)
def test_paths_are_found_and_said_once(tmp_path: Path, written: str) -> None:
    path = picture(tmp_path / "images/train/a b.png")
    coco_file(tmp_path / "annotations/train.json", [written])
    index = load_index(load_data_spec(tmp_path), "train", for_training=True)
    assert index.paths.tolist() == [str(path)] and len(index.boxes) == 1
    what = "images found under another path than the one written"
    assert index.counts.get(what, 0) == (not (tmp_path / "images/train" / written).exists())


def test_a_name_that_several_files_have_is_not_guessed(tmp_path: Path) -> None:
    for folder in ("1", "2"):
        picture(tmp_path / "images" / folder / "a.png")
    coco_file(tmp_path / "annotations/train.json", ["D:\\x\\a.png"])
    with pytest.raises(DataError, match="ambiguous; it could be"):
        load_index(load_data_spec(tmp_path), "train")


def test_the_current_directory_is_a_data_set(tmp_path: Path, monkeypatch) -> None:
    picture(tmp_path / "images/train/a.png")
    coco_file(tmp_path / "annotations/train.json", ["a.png"])
    monkeypatch.chdir(tmp_path)
    for data in (".", "./", "annotations/train.json", "../" + tmp_path.name):
        assert len(load_index(load_data_spec(data), "train")) == 1


def test_a_data_yaml_of_windows(tmp_path: Path) -> None:
    picture(tmp_path / "images/train/a.png")
    (tmp_path / "labels/train").mkdir(parents=True)
    (tmp_path / "labels/train/a.txt").write_text("0 .5 .5 .2 .2\n")
    (tmp_path / "list.txt").write_text("images\\train\\a.png\n")
    for place in ("images\\train", "list.txt"):
        (tmp_path / "data.yaml").write_text(f"path: .\\\ntrain: {place}\nnames: [car]\n")
        assert len(load_index(load_data_spec(tmp_path), "train").boxes) == 1


def test_names_are_the_text_that_is_written(tmp_path: Path) -> None:
    names = ["no", "yes", "null", "010", "12:30", "1e3", "0x1F", "~", "2026-01-01", "a b"]
    path = tmp_path / "data.yaml"
    path.write_text("train: x\nnames: [" + ", ".join(names) + "]\n")
    assert list(load_data_spec(path).names) == names
    path.write_text("train: x\nnames:\n" + "".join(f"  {i}: {n}\n" for i, n in enumerate(names)))
    assert list(load_data_spec(path).names) == names
    for text, message in (
        ("names: [[a]]", "names must be a list"),
        ("names: ['']", "class 0 has an empty name"),
        ("nc: 10000000000", "nc must be a number of classes up to 10000, not 10000000000"),
        ("nc: -1", "not -1"),
    ):
        path.write_text(f"train: x\n{text}\n")
        with pytest.raises(DataError, match=message):
            load_data_spec(path)


@pytest.mark.parametrize(("image", "category"), [(1.0, 1.0), ("1", "1"), (1, "1"), ("1", 1.0)])
def test_ids_as_numbers_with_a_point_or_as_text(tmp_path: Path, image, category) -> None:
    picture(tmp_path / "images/a.png")
    file = coco_file(tmp_path / "annotations/train.json", ["a.png"])
    content = json.loads(file.read_text())
    content["annotations"][0] |= {"image_id": image, "category_id": category}
    content["categories"][0]["id"] = category
    file.write_text(json.dumps(content))
    index = load_index(load_data_spec(tmp_path), "train")
    assert index.labels.tolist() == [0] and index.image_ids.tolist() == [1]
    kind = FORMATS["coco"]
    part = kind.find(tmp_path)["train"]
    assert len(kind.read(part, kind.classes([part])).boxes) == 1


@pytest.mark.parametrize(
    ("segmentation", "box"),
    [
        ([[1, 2, 6, 2, 6, 8, 1, 8]], [1, 2, 5, 6]),
        ([[1, 2, 3, 4, 2, 3], [5, 5, 6, 8, 6, 6]], [1, 2, 5, 6]),
        # 20 rows: column 1 from row 2 to 7, column 5 the same
        ({"size": [20, 30], "counts": [22, 6, 74, 6, 492]}, [1, 2, 5, 6]),
        # one run over two columns: from row 15 of column 0 to row 4 of column 1
        ({"size": [20, 30], "counts": [15, 10, 575]}, [0, 0, 2, 20]),
        ({"size": [20, 30], "counts": [600]}, None),
        ({"size": [20, 30], "counts": "\x00"}, None),
        ({"size": [2**60, 30], "counts": [1, 2]}, None),
        ([[1]], None),
        ("x", None),
    ],
)
def test_boxes_round_polygons_and_masks(segmentation, box) -> None:
    found = box_of(segmentation)
    assert found == (None if box is None else tuple(box))


def test_compressed_masks_have_the_box_of_pycocotools() -> None:
    mask_tools = pytest.importorskip("pycocotools.mask")
    rng = np.random.default_rng(0)
    for _ in range(50):
        pixels = np.zeros((37, 53), np.uint8, order="F")
        y, x = rng.integers(0, 30), rng.integers(0, 45)
        pixels[y : y + rng.integers(1, 7), x : x + rng.integers(1, 8)] = 1
        pixels[rng.integers(0, 37), rng.integers(0, 53)] = 1
        mask = mask_tools.encode(pixels)
        found = box_of({"size": mask["size"], "counts": mask["counts"].decode()})
        assert found == tuple(mask_tools.toBbox(mask))


def test_boxes_are_made_of_polygons_for_training_and_conversion(tmp_path: Path) -> None:
    picture(tmp_path / "images/a.png")
    polygon = [[1, 2, 6, 2, 6, 8]]
    file = coco_file(tmp_path / "annotations/train.json", ["a.png"], segmentation=polygon)
    content = json.loads(file.read_text())
    del content["annotations"][0]["bbox"]
    file.write_text(json.dumps(content))
    index = load_index(load_data_spec(tmp_path), "train", for_training=True)
    assert index.boxes.tolist() == [[1, 2, 6, 8]]
    what = "boxes made of polygons or masks, where the file gives no bbox"
    assert index.counts[what] == 1
    kind = FORMATS["coco"]
    part = kind.find(tmp_path)["train"]
    assert kind.read(part, kind.classes([part])).boxes.tolist() == [[1, 2, 6, 8]]


def test_training_on_nothing_is_refused_with_the_place(tmp_path: Path) -> None:
    picture(tmp_path / "images/train/a.png")
    (tmp_path / "data.yaml").write_text("train: images/train\nnames: [car]\n")
    spec = load_data_spec(tmp_path)
    with pytest.raises(DataError, match=r"no boxes to train on.*labels/train/a\.txt \(no such"):
        require_objects(spec, "train", load_index(spec, "train", for_training=True))
    (tmp_path / "labels/train").mkdir(parents=True)
    (tmp_path / "labels/train/a.txt").write_text("0 .5 .5 .01 .01\n" * 2)  # 0.3 x 0.2 px
    with pytest.raises(DataError, match="2 boxes under 1 px or without area dropped"):
        require_objects(spec, "train", load_index(spec, "train", for_training=True))


def test_labels_beside_the_images_are_found(tmp_path: Path) -> None:
    picture(tmp_path / "images/train/a.png")
    (tmp_path / "images/train/a.txt").write_text("0 .5 .5 .2 .2\n")
    (tmp_path / "data.yaml").write_text("train: images/train\nnames: [car]\n")
    index = load_index(load_data_spec(tmp_path), "train")
    assert len(index.boxes) == 1 and index.counts == {"label files found beside their images": 1}


def test_a_root_category_without_boxes_is_no_class(tmp_path: Path) -> None:
    """Roboflow's `categories` begin with the name of the project."""
    for split in ("train", "valid"):
        picture(tmp_path / split / "a.png")
        file = coco_file(tmp_path / split / "_annotations.coco.json", ["a.png"])
        content = json.loads(file.read_text())
        content["categories"] = [
            {"id": 0, "name": "car", "supercategory": "none"},
            {"id": 1, "name": "car", "supercategory": "car"},
        ]
        file.write_text(json.dumps(content))
    spec = load_data_spec(tmp_path)
    index = load_index(spec, "train")
    assert set(spec.splits) == {"train", "val"} and index.names == ("car",)
    assert index.labels.tolist() == [0] and index.category_ids == (1,)
    assert index.counts[GROUP] == 1  # said by convert, inspect and train
    kind = FORMATS["coco"]
    assert kind.classes(kind.find(tmp_path).values()).names == ["car"]


VISDRONE = "1,2,5,6,1,4,0,0\n10,2,4,4,0,0,0,0\n"
DOTA = "1 2 6 2 6 8 1 8 ship 0\n"
VOC = (
    "<annotation><object><name>car</name><bndbox><xmin>1</xmin><ymin>2</ymin><xmax>6</xmax>"
    "<ymax>8</ymax></bndbox></object></annotation>"
)
FEATURE = (
    '{"features": [{"properties": {"image_id": "a.png", "type_id": 17, '
    '"bounds_imcoords": "1,2,6,8"}}]}'
)
CVAT = (
    '<annotations><image id="0" name="a.png" width="30" height="20">'
    '<box label="car" occluded="0" xtl="1" ytl="2" xbr="6" ybr="8"/></image></annotations>'
)
LAYOUTS = {
    "cvat": {"annotations.xml": CVAT},
    "visdrone": {"annotations/a.txt": VISDRONE},
    "dota": {"labelTxt/a.txt": DOTA},
    "voc": {"Annotations/a.xml": VOC},
    "csv": {"boxes.csv": "image_path,xmin,ymin,xmax,ymax,label\na.png,1,2,6,8,car\n"},
    "xview": {"train.geojson": FEATURE},
    # CVAT and Label Studio
    "yolo": {"labels/a.txt": "0 0.116666667 0.25 0.166666667 0.3\n", "classes.txt": "car\n"},
}


@pytest.mark.parametrize("format", LAYOUTS)
@pytest.mark.parametrize("how", ["directory", "format and path", "data"])
def test_every_format_trains_without_conversion(tmp_path: Path, format: str, how: str) -> None:
    root = tmp_path / "set"
    picture(root / "images/a.png")
    for name, text in LAYOUTS[format].items():
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_text(text)
    data = root
    if how != "directory":
        data = tmp_path / "mine.yaml"
        inner = f"{{format: {format}, path: set}}"
        plain = f"format: {format}\npath: set"
        data.write_text(plain if how == "format and path" else f"data: {inner}")
    spec = load_data_spec(data)
    index = load_index(spec, next(iter(spec.splits)), for_training=True)
    np.testing.assert_allclose(index.boxes[0], [1, 2, 6, 8], atol=1e-4)
    assert index.paths.tolist() == [str(root / "images/a.png")]
    assert index.image_hw.tolist() == [[20, 30]]
    assert index.ignore.tolist() == ([False, True] if format == "visdrone" else [False])


def test_tiles_of_tinyperson_train_as_the_pictures_that_they_are(tmp_path: Path) -> None:
    pixels = np.arange(20 * 30 * 3, dtype=np.uint32).reshape(20, 30, 3).astype(np.uint8)
    (tmp_path / "train").mkdir()
    write_image(tmp_path / "train/a.png", pixels)
    file = coco_file(tmp_path / "tiny_set_train.json", ["a.png", "a.png"])
    content = json.loads(file.read_text())
    for image, corner in zip(content["images"], ([0, 0, 15, 20], [15, 0, 30, 20]), strict=True):
        image |= {"corner": corner, "width": 15}
    file.write_text(json.dumps(content))
    (tmp_path / "data.yaml").write_text("format: tinyperson\npath: .\n")
    index = load_index(load_data_spec(tmp_path), "train", for_training=True)
    assert np.array_equal(index.read_image(1), pixels[:, 15:]) and len(index.boxes) == 2


def test_an_unknown_format_is_answered_with_the_nearest(tmp_path: Path) -> None:
    (tmp_path / "data.yaml").write_text("format: visdron\npath: .\n")
    with pytest.raises(DataError, match=r"format 'visdron' is none of .*did you mean 'visdrone'"):
        load_data_spec(tmp_path)


@pytest.mark.timeout(60)
def test_pipes_are_refused_wherever_a_file_is_read(tmp_path: Path) -> None:
    picture(tmp_path / "images/train/a.png")
    (tmp_path / "labels/train").mkdir(parents=True)
    os.mkfifo(tmp_path / "labels/train/a.txt")
    (tmp_path / "data.yaml").write_text("train: images/train\nnames: [car]\n")
    with pytest.raises(DataError, match="is a named pipe"):
        load_index(load_data_spec(tmp_path), "train")
    os.mkfifo(tmp_path / "list.txt")
    (tmp_path / "data.yaml").write_text("train: list.txt\nnames: [car]\n")
    with pytest.raises(DataError, match="is a named pipe"):
        load_index(load_data_spec(tmp_path), "train")
    os.mkfifo(tmp_path / "train.json")
    with pytest.raises(DataError, match=r"is a named pipe|no annotations|neither"):
        load_index(load_data_spec(tmp_path / "train.json"), "train")


@pytest.mark.parametrize("width", [2**32, 2**70, 10**400, -5, 0.5, "wide", None, [], True])
def test_sizes_that_no_image_has_are_read_from_the_image(tmp_path: Path, width) -> None:
    picture(tmp_path / "images/a.png")
    file = coco_file(tmp_path / "annotations/train.json", ["a.png"])
    content = json.loads(file.read_text())
    content["images"][0]["width"] = width
    file.write_text(json.dumps(content))
    index = load_index(load_data_spec(tmp_path), "train")
    assert index.image_hw.tolist() == [[20, 30]]


def test_a_stated_size_takes_no_memory(tmp_path: Path) -> None:
    """A file of 64 px that is said to have 50,000: 7.5 GB if it were believed."""
    picture(tmp_path / "images/a.png", 64, 64)
    file = coco_file(tmp_path / "annotations/train.json", ["a.png"])
    content = json.loads(file.read_text())
    content["images"][0] |= {"width": 50_000, "height": 50_000}
    file.write_text(json.dumps(content))
    index = load_index(load_data_spec(tmp_path), "train")
    with pytest.raises(DataError, match="annotations state 50000 x 50000 px"):
        index.picture(0)


def test_images_of_a_list_that_are_not_there_are_counted(tmp_path: Path) -> None:
    picture(tmp_path / "frames/a.png")
    (tmp_path / "frames/a.txt").write_text("0 .5 .5 .2 .2\n")
    (tmp_path / "list.txt").write_text("frames/a.png\nframes/gone.png\n")
    (tmp_path / "data.yaml").write_text("train: list.txt\nnames: [car]\n")
    index = load_index(load_data_spec(tmp_path), "train")
    assert len(index) == 1 and index.counts == {"images without a file left out": 1}
    (tmp_path / "list.txt").write_text("frames/gone.png\n")
    with pytest.raises(DataError, match=r"none of the listed images is there; the first: .*gone"):
        load_index(load_data_spec(tmp_path), "train")


def test_class_names_of_yolo_come_from_its_own_data_set(tmp_path: Path) -> None:
    picture(tmp_path / "set/images/train/a.png")
    (tmp_path / "set/labels/train").mkdir(parents=True)
    (tmp_path / "set/labels/train/a.txt").write_text("0 0.5 0.5 0.2 0.2\n")
    (tmp_path / "other.names").write_text("zebra\n")
    kind = FORMATS["yolo"]
    for source in ("set", "set/images", "set/images/train"):
        assert kind.classes(kind.find(tmp_path / source).values()).names == ["class0"]
    (tmp_path / "set/classes.txt").write_text("car\n")
    for source in ("set", "set/images", "set/images/train"):
        assert kind.classes(kind.find(tmp_path / source).values()).names == ["car"]


TABLE = "filename,width,height,class,xmin,ymin,xmax,ymax\na.png,30,20,car,1,2,6,8\n"
EXPORTS = {
    "CVAT, YOLO 1.1": {
        "obj_train_data/a.txt": "0 0.116666667 0.25 0.166666667 0.3\n",
        "obj_train_data/a.png": None,
        "obj.names": "car\n",
        "obj.data": "classes = 1\ntrain = data/train.txt\nnames = data/obj.names\n",
        "train.txt": "data/obj_train_data/a.png\n",
    },
    "CVAT, for images": {"annotations.xml": CVAT, "images/a.png": None},
    "CVAT, for images, a project": {
        "annotations.xml": CVAT.replace("<image ", '<image subset="Train" '),
        "images/Train/a.png": None,
        "images/Test/a.png": None,
    },
    "CVAT, for video": {
        "annotations.xml": CVAT.replace('<image id="0" name="a.png"', '<track label="car"')
        .replace("image>", "track>")
        .replace("<box ", '<box frame="7" outside="0" '),
        "images/frame_000007.jpg": None,
    },
    "CVAT, Pascal VOC": {
        "Annotations/a.xml": VOC,
        "JPEGImages/a.png": None,
        "ImageSets/Main/default.txt": "a\n",
        "labelmap.txt": "# label:color_rgb:parts:actions\ncar:1,2,3::\n",
    },
    "Label Studio, YOLO": {
        "images/0a1b2c3d-a.png": None,
        "labels/0a1b2c3d-a.txt": "0 0.116666667 0.25 0.166666667 0.3\n",
        "classes.txt": "car\n",
        "notes.json": '{"categories": [{"id": 0, "name": "car"}], "info": {}}',
    },
    "Roboflow, CSV": {"train/_annotations.csv": TABLE, "train/a.png": None},
    "Roboflow, VOC": {"train/a.xml": VOC, "train/a.png": None},
}


@pytest.mark.parametrize("export", EXPORTS)
def test_exports_of_other_tools_are_recognised(tmp_path: Path, export: str) -> None:
    root = tmp_path / "export"
    for name, text in EXPORTS[export].items():
        if text is None:
            picture(root / name)
            continue
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    index = load_index(load_data_spec(root), "train", for_training=True)
    np.testing.assert_allclose(index.boxes, [[1, 2, 6, 8]], atol=1e-4)
    assert index.names == ("car",)


@pytest.mark.parametrize("file", ["annotations/instances_default.json", "result.json"])
def test_coco_exports_of_cvat_and_label_studio_are_recognised(tmp_path: Path, file: str) -> None:
    picture(tmp_path / "images/0a1b2c3d-a.png")
    coco_file(tmp_path / file, ["images\\0a1b2c3d-a.png"])
    for data in (tmp_path, tmp_path / file):
        assert len(load_index(load_data_spec(data), "train").boxes) == 1

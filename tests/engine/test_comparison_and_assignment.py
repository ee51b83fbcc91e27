"""`rfla compare` and the assigner's part of `rfla inspect`, on a data set of three images."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from rfla.assign.explain import AssignmentReport
from rfla.cfg import Config, load_config
from rfla.cfg.document import to_yaml
from rfla.cli import main
from rfla.data.images import read_image
from rfla.engine.assignment import advice, assignment_report
from rfla.engine.comparison import compare_files
from rfla.errors import ConfigError


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Three images of 64 x 64 px, the first two with two 8 px boxes each."""
    from PIL import Image

    (tmp_path / "images" / "train").mkdir(parents=True)
    (tmp_path / "annotations").mkdir()
    images, boxes = [], []
    for i in range(3):
        Image.fromarray(np.full((64, 64, 3), 90 + i, np.uint8)).save(
            tmp_path / "images" / "train" / f"{i}.png"
        )
        images.append({"id": i + 1, "file_name": f"{i}.png", "height": 64, "width": 64})
        for x in (8, 40) if i < 2 else ():
            box = {
                "id": len(boxes) + 1,
                "image_id": i + 1,
                "category_id": 1,
                "bbox": [x, 8, 8, 8],
                "area": 64,
            }
            boxes.append(box | {"iscrowd": 0})
    content = {"images": images, "annotations": boxes, "categories": [{"id": 1, "name": "thing"}]}
    (tmp_path / "annotations" / "train.json").write_text(json.dumps(content))
    return tmp_path


def detections(path: Path, found: list[tuple[int, int]]) -> str:
    """A COCO file of perfect boxes at (image id, x)."""
    rows = [{"image_id": i, "category_id": 1, "bbox": [x, 8, 8, 8], "score": 0.9} for i, x in found]
    path.write_text(json.dumps(rows))
    return str(path)


def test_compare_two_files_and_two_runs(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    all_four = [(1, 8), (1, 40), (2, 8), (2, 40)]
    a = detections(tmp_path / "a.json", all_four[:2])
    b = detections(tmp_path / "b.json", all_four)
    result = compare_files(a, b, data=str(data), split="train", draws=10)
    ap = next(figure for figure in result.figures if figure.name == "ap")
    assert ap.b == pytest.approx(1.0)
    assert ap.delta == ap.b - ap.a > 0.4
    assert [change.image for change in result.changed] == [2]
    with pytest.raises(ConfigError, match="data is missing"):
        compare_files(a, b)
    for name, found in (
        ("one", all_four[:2]),
        ("two", all_four),
    ):  # run directories know their data and split
        run = tmp_path / "runs" / name
        run.mkdir(parents=True)
        (run / "args.yaml").write_text(
            to_yaml(load_config({"data": str(data), "split": "train", "protocol": "coco"}))
        )
        detections(run / "predictions.json", found)
    out = tmp_path / "out.json"
    runs = [f"{side}={tmp_path}/runs/{name}" for side, name in (("a", "one"), ("b", "two"))]
    assert main(["compare", *runs, "draws=10", f"out={out}"]) == 0
    assert "b - a" in capsys.readouterr().out
    assert json.loads(out.read_text())["changed"][0]["image"] == 2
    assert json.loads(out.read_text())["protocol"] == "coco"
    (tmp_path / "runs" / "two" / "args.yaml").write_text(
        to_yaml(load_config({"data": str(data), "split": "val"}))
    )
    assert main(["compare", *runs, "split=train"]) == 2
    assert "different protocol (coco, None)" in capsys.readouterr().err
    assert main(["compare", *runs]) == 2
    assert (
        "a and b were judged with different split (train, val); say which by split="
        in capsys.readouterr().err
    )
    (tmp_path / "runs" / "two" / "args.yaml").unlink()
    for text, message in (
        ("[{}]", "detection 0 has no 'score'"),
        ('{"a": 1}', "not COCO detections"),
        ("[", "not valid JSON"),
    ):
        (tmp_path / "hostile.json").write_text(text)
        assert main(["compare", runs[0], f"b={tmp_path}/hostile.json"]) == 2
        told = capsys.readouterr().err
        assert message in told and told.count("\n") == 1
    (tmp_path / "runs" / "two" / "predictions.json").unlink()
    assert main(["compare", *runs]) == 2
    assert "no predictions.json there; make one by: rfla val" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("model", "assigner"), [("fcos_p2", "rfla"), ("fcos_p2", "baseline"), ("faster_rcnn", "rfla")]
)
def test_assignment_of_a_data_set(data: Path, model: str, assigner: str) -> None:
    """Four boxes on two images.

    Stage one and two of RFLA give each box at least its k best of stage one.
    """
    small = {
        "backbone": "resnet18",
        "neck.width": 16,
        "head.width": 16,
        "imgsz": 64,
        "split": "train",
    }
    report = assignment_report(
        load_config({"model": model, "assigner": assigner, "data": str(data)} | small)
    )
    assert (report.images, len(report.positives)) == (2, 4)
    assert report.sizes == pytest.approx([8.0] * 4)
    if assigner == "rfla":
        assert report.without_positive == ()
        assert min(report.positives) >= 2


def test_a_size_that_gives_boxes_a_positive_is_advised(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Images of 64 px: inputs of 64, 96 and 128 px are tried, until half of the loss is mended."""
    cfg = load_config({"model": "fcos_p2", "data": str(data), "split": "train", "imgsz": 32})
    report = replace(assignment_report(cfg), positives=(0, 0, 2, 3))
    found = {64: (0, 0, 3, 3), 96: (0, 3, 3, 3), 128: (3, 3, 3, 3)}

    def try_size(tried: Config, images: int) -> AssignmentReport:
        return replace(report, positives=found[tried.imgsz])

    monkeypatch.setattr("rfla.engine.assignment.assignment_report", try_size)
    assert advice(cfg, report) == (
        "of 4 boxes get no positive from model=fcos_p2 at imgsz=32: imgsz=96 leaves 25.0% without, "
        "and so do tiles (rfla convert format=... tile=32)"
    )
    found |= {96: found[64], 128: found[64]}
    assert advice(cfg, report).endswith("a model with a finer level (fcos_p2) may part them")


def test_inspect_with_a_model(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    code = main(
        ["inspect", f"data={data}", "model=fcos_p2", "imgsz=64", "assigner.topk=[1,1]", "workers=1"]
    )
    out = capsys.readouterr().out
    assert code in (0, 1)
    assert "assignment by model=fcos_p2 at imgsz=64, split train" in out
    assert "4 boxes" in out
    assert "written: runs/inspect/assignment_train.png" in out
    picture = read_image(tmp_path / "runs" / "inspect" / "assignment_train.png")
    assert picture.shape == (
        64 * 8 + 24,
        64 * 8,
        3,
    )  # the whole image, 8 times enlarged, and a legend
    assert tuple(picture[8 * 8 - 2, 12 * 8]) == (
        255,
        255,
        255,
    )  # the upper side of the box at (8, 8)

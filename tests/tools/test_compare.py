"""`rfla compare` on a data set of three images."""

import json
from pathlib import Path

import pytest

from rfla.cfg import load_config
from rfla.cfg.document import to_yaml
from rfla.cli import main
from rfla.errors import ConfigError
from rfla.tools.compare import compare_files


def detections(path: Path, found: list[tuple[int, int]]) -> str:
    """A COCO file of perfect boxes at (image id, x)."""
    rows = [{"image_id": i, "category_id": 1, "bbox": [x, 8, 8, 8], "score": 0.9} for i, x in found]
    path.write_text(json.dumps(rows))
    return str(path)


def test_compare_two_files_and_two_runs(
    three_images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    all_four = [(1, 8), (1, 40), (2, 8), (2, 40)]
    a = detections(tmp_path / "a.json", all_four[:2])
    b = detections(tmp_path / "b.json", all_four)
    result = compare_files(a, b, data=str(three_images), split="train", draws=10)
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
            to_yaml(load_config({"data": str(three_images), "split": "train", "protocol": "coco"}))
        )
        detections(run / "predictions.json", found)
    out = tmp_path / "out.json"
    runs = [f"{side}={tmp_path}/runs/{name}" for side, name in (("a", "one"), ("b", "two"))]
    assert main(["compare", *runs, "draws=10", f"out={out}"]) == 0
    assert "b - a" in capsys.readouterr().out
    for given, message in ((a, "exists already"), (tmp_path / "x.txt", "a .json file is needed")):
        assert main(["compare", *runs, f"out={given}"]) == 2
        assert message in capsys.readouterr().err
    assert len(json.loads(Path(a).read_text())) == 2
    assert main(["compare", *runs, "draws=10", f"out={out}", "overwrite"]) == 0
    capsys.readouterr()
    assert json.loads(out.read_text())["changed"][0]["image"] == 2
    assert json.loads(out.read_text())["protocol"] == "coco"
    (tmp_path / "runs" / "two" / "args.yaml").write_text(
        to_yaml(load_config({"data": str(three_images), "split": "val"}))
    )
    assert main(["compare", *runs, "split=train"]) == 2
    assert "different protocol (coco, aitod)" in capsys.readouterr().err
    assert main(["compare", *runs]) == 2
    assert (
        "a and b were evaluated with different split (train, val); choose one with split="
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

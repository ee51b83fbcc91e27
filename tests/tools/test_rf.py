"""`rfla rf`: theoretical, measured and used fields of a model, and the boxes that each serves."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torchvision.models import resnet18

from rfla.cli import main
from rfla.data.images import read_image
from rfla.errors import ConfigError
from rfla.fields import MeasuredField, TracedField
from rfla.models import build_detector
from rfla.tools.field_report import FieldReport, LevelFields
from rfla.tools.rf import levels_serving

SMALL = ("backbone=resnet18", "neck.width=16", "imgsz=64", "images=2", "pretrained=false")


def squares(*sides: float) -> np.ndarray:
    """Boxes with their corner at 5, 5."""
    return np.array([[5, 5, 5 + side, 5 + side] for side in sides])


def test_levels_by_hand():
    """KL of a square b to a field u, centres alike: r^2 - 1 - 2 ln r, with r = u / b.

    Two neighbours are equal at b^2 = (u2^2 - u1^2) / (2 ln(u2 / u1)): with fields of 17.5 and 45.5
    px at b = 30.4, with 45.5 and 133.5 at 85.5.
    """
    net = build_detector("fcos_p2", 1, settings={"backbone": "resnet18", "neck.width": 16})
    assert levels_serving(net, squares(2, 30, 31, 85, 86)).tolist() == [0, 0, 1, 1, 2]
    assert levels_serving(net, np.zeros((0, 4))).tolist() == []
    net = build_detector("fcos_p2", 1, "atss", {"backbone": "resnet18", "neck.width": 16})
    assert levels_serving(net, squares(2, 30)).tolist() == [-1, -1]


def test_the_table_by_hand():
    bounded = TracedField((35, 35), (4, 4), (0.5, 0.5))
    unbounded = TracedField((math.inf,) * 2, (8, 8), (math.nan,) * 2, "attention")
    measured = MeasuredField((5.0, 20.0), (4, 4), (0.5, -1.25), 0.125)
    levels = (
        LevelFields("P2", 4, bounded, unbounded, measured, 35, 17.5, (1, 30.25), 3),
        LevelFields("P3", 8, None, unbounded, measured, 91, 45.5, (30.5, math.inf), 1),
    )
    report = FieldReport("fields of a toy", levels, 4)
    assert report.text().splitlines() == [
        "fields of a toy",
        "",
        "level  stride  backbone    pyramid  measured       sigma      centre  error  used  "
        "effective  serves boxes of  boxes",
        "   P2       4        35  unbounded        40  5.0 x 20.0  +0.5, -1.2   0.12    35  "
        "     17.5       1 to 30 px  75.0%",
        "   P3       8         -  unbounded        40  5.0 x 20.0  +0.5, -1.2   0.12    91  "
        "     45.5   30 px and more  25.0%",
        "unbounded by attention",
    ]
    json.dumps(report.as_dict(), allow_nan=False)
    assert report.as_dict()["levels"][1]["serves"] == [30.5, None]
    assert report.as_dict()["levels"][0]["pyramid"]["side"] is None


def test_on_a_data_set(three_images: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    given = ["rf", "model=fcos_p2", f"data={three_images}", *SMALL, f"project={tmp_path / 'runs'}"]
    assert main([*given, "assigner.fields=measured", "assigner.fraction=0.4"]) == 0
    printed = capsys.readouterr().out
    assert "random weights: px at imgsz=64, measured on 2 images" in printed
    document = json.loads((tmp_path / "runs" / "rf" / "fields.json").read_text())
    assert document["boxes"] == 4 and sum(level["boxes"] for level in document["levels"]) == 4
    assert [level["backbone"] and level["backbone"]["side"] for level in document["levels"]] == [
        *(43, 99, 211, 435),
        None,
    ]
    for level in document["levels"]:
        assert level["used"] == level["measured"]["side"]
        assert level["effective"] == pytest.approx(0.4 * level["used"])
    assert read_image(tmp_path / "runs" / "rf" / "fields.png").shape[2] == 3

    # the same again, into a directory of its own
    assert main([*given, "assigner.fields=measured", "assigner.fraction=0.4"]) == 0
    again = json.loads((tmp_path / "runs" / "rf2" / "fields.json").read_text())
    assert again == document


def test_trained_weights(three_images: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """They say at which size they were trained, and which fields they learnt with."""
    given = ["model=fcos_p2", f"data={three_images}", *SMALL[:2], "pretrained=false"]
    given += [f"project={tmp_path / 'runs'}", "device=cpu", "workers=0", "val=false", "plots=false"]
    sizes = ["imgsz=96", "epochs=1", "batch=2", "assigner.fields=[8,16,32,64,128]"]
    assert main(["train", *given, *sizes, "head.width=16", "head.depth=1"]) == 0
    weights = tmp_path / "runs" / "train" / "weights" / "last.safetensors"
    capsys.readouterr()
    assert main(["rf", f"model={weights}", "images=1", f"project={tmp_path / 'runs'}"]) == 0
    assert "trained weights: px at imgsz=96, measured on 1 random images" in capsys.readouterr().out
    document = json.loads((tmp_path / "runs" / "rf" / "fields.json").read_text())
    assert [level["used"] for level in document["levels"]] == [8, 16, 32, 64, 128]


def test_a_place_that_cannot_be_written(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """Before anything is measured."""
    (tmp_path / "file").touch()
    assert main(["rf", "model=fcos", f"project={tmp_path / 'file'}"]) == 2
    said = capsys.readouterr()
    assert said.out == "" and said.err.startswith(f"error: project={tmp_path / 'file'}: ")


def test_a_backbone_of_a_file(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """The fields are those of its weights: all of them zero it sees nothing."""
    net = resnet18(weights=None)
    state = {key: torch.zeros_like(value) for key, value in net.state_dict().items()}
    torch.save(state, tmp_path / "w.pth")
    tokens = ["rf", "model=fcos_p2", *SMALL, "images=1", f"project={tmp_path}"]
    assert main([*tokens, f"backbone.weights={tmp_path / 'w.pth'}"]) == 0
    assert f"of fcos_p2, backbone of {tmp_path / 'w.pth'}: px at" in capsys.readouterr().out
    document = json.loads((tmp_path / "rf" / "fields.json").read_text())
    assert {level["measured"]["side"] for level in document["levels"]} == {None}


@pytest.mark.slow
@pytest.mark.parametrize(
    "model", ["fcos", "rfd", "retinanet", "autoassign", "faster_rcnn", "cascade_rcnn", "detectors"]
)
def test_every_detector(model: str, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["rf", f"model={model}", *SMALL[:3], "images=1", f"project={tmp_path}"]) == 0
    printed = capsys.readouterr().out
    unbounded = "unbounded by global pooling" in printed
    assert unbounded == (model == "detectors")
    assert (tmp_path / "rf" / "fields.png").stat().st_size > 10_000


@pytest.mark.parametrize(
    ("tokens", "line"),
    [
        ([], "model is missing: "),
        (["model=fcs"], "did you mean"),
        (["model=fcos", "images=0"], "images=0: must be a whole number of at least 1"),
        (["model=fcos", "assigner.fields=trcd"], "did you mean 'traced'?"),
        (["model=fcos", "assigner.fields=[0,1]"], "numbers above 0, px, one for each"),
        (
            ["model=fcos", "assigner.fields=[9]"],
            "one side for each of the 5 levels (P3 to P7) is needed, not 1",
        ),
        (
            ["model=detectors", "assigner.fields=traced"],
            "fields of resnet50 are unbounded (global pooling)",
        ),
        (["model=x.onnx"], "model=x.onnx: is an exported network; give the weights it came from"),
        (["model=fcos", "backbone.weights=gone.pth"], "gone.pth: no such file"),
        (
            ["model=fcos", "epochs=3"],
            "unknown key 'epochs' here; other verbs have it",
        ),
    ],
)
def test_one_line(
    tokens: list[str], line: str, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    assert main(["rf", *tokens, f"project={tmp_path / 'runs'}"]) == ConfigError.exit_code == 2
    printed = capsys.readouterr().err
    assert line in printed and printed.count("\n") == 1
    assert not (tmp_path / "runs").exists()

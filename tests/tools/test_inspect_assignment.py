"""The assigner's part of `rfla inspect`, on a data set of three images."""

from dataclasses import replace
from pathlib import Path

import pytest

from rfla.assign.explain import AssignmentReport
from rfla.cfg import Config, load_config
from rfla.cli import main
from rfla.data.images import read_image
from rfla.engine.model_source import weights_metadata
from rfla.models import build_detector
from rfla.models.weights import save_weights
from rfla.tools.inspect import assignment
from rfla.tools.inspect.assignment import advice, assignment_report


@pytest.mark.parametrize(
    ("model", "assigner"),
    [("fcos_p2", "rfla"), ("fcos_p2", "baseline"), ("rfd", "rfla"), ("faster_rcnn", "rfla")],
)
def test_assignment_of_a_data_set(three_images: Path, model: str, assigner: str) -> None:
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
        load_config({"model": model, "assigner": assigner, "data": str(three_images)} | small)
    )
    assert (report.images, len(report.positives)) == (2, 4)
    assert report.sizes == pytest.approx([8.0] * 4)
    if assigner == "rfla":
        assert report.without_positive == ()
        assert min(report.positives) >= 2


def test_measured_fields_are_measured_first(
    three_images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On the images of the split, and with the same weights each time."""
    used = []
    monkeypatch.setattr(assignment, "use_sides", lambda net, sides: used.append(sides))
    cfg = load_config(
        {"model": "fcos_p2", "data": str(three_images), "split": "train", "imgsz": 64}
        | {"backbone": "resnet18", "neck.width": 16, "head.width": 16}
        | {"assigner.fields": "measured"}
    )
    assignment_report(cfg)
    assignment_report(cfg)
    assert used[0] == used[1] and len(used[0]) == 5 and 0 < used[0][0] < used[0][4] < 4 * 64


def test_a_size_that_gives_boxes_a_positive_is_advised(
    three_images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Images of 64 px: inputs of 64, 96 and 128 px are tried, until half of the loss is mended."""
    cfg = load_config(
        {"model": "fcos_p2", "data": str(three_images), "split": "train", "imgsz": 32}
    )
    report = replace(assignment_report(cfg), positives=(0, 0, 2, 3))
    found = {64: (0, 0, 3, 3), 96: (0, 3, 3, 3), 128: (3, 3, 3, 3)}

    def try_size(tried: Config, images: int) -> AssignmentReport:
        return replace(report, positives=found[tried.imgsz])

    monkeypatch.setattr("rfla.tools.inspect.assignment.assignment_report", try_size)
    assert advice(cfg, report) == (
        "of 4 boxes without a positive from model=fcos_p2 at imgsz=32: imgsz=96 leaves 25.0% "
        "without, and so do tiles (rfla convert format=... tile=32)"
    )
    found |= {96: found[64], 128: found[64]}
    assert advice(cfg, report).endswith("a model with a finer level (fcos_p2) may part them")


def test_inspect_with_a_model(
    three_images: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    code = main(
        [
            "inspect",
            f"data={three_images}",
            "model=fcos_p2",
            "imgsz=64",
            "assigner.topk=[1,1]",
            "workers=1",
        ]
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


def test_weights_are_tried_at_the_size_of_their_training(
    three_images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """96 px; another one where it is typed."""
    small = {"backbone": "resnet18", "neck.width": 16, "head.width": 16, "head.depth": 1}
    net = build_detector("fcos_p2", num_classes=2, settings=small)
    path = tmp_path / "best.safetensors"
    metadata = weights_metadata(net.config, ("ship", "car"), 96, {}, {})
    save_weights(path, net.state_dict(), metadata)
    given = [
        "inspect",
        f"data={three_images}",
        f"model={path}",
        f"project={tmp_path}",
        "split=train",
    ]
    main(given)
    assert f"assignment by model={path} at imgsz=96" in capsys.readouterr().out
    main([*given, "imgsz=64"])
    assert f"assignment by model={path} at imgsz=64" in capsys.readouterr().out

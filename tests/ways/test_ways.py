"""Whole ways from annotations to a comparison, in every format, with real loading processes.

Each way starts from a painted data set with an image that cannot be read, one without objects and
one without labels. The run is ended by Ctrl-C, by SIGTERM and by a full disk, and resumed each
time.
"""

import json
import signal
from collections.abc import Callable
from pathlib import Path

import paint
import pytest
from drive import Command

EPOCHS = 12
TRAIN = [
    "model=fcos", "backbone=resnet18", "neck.width=16", "head.width=16", "head.depth=1",
    "pretrained=false", "imgsz=64", "batch=2", "workers=2", "device=cpu", "plots=false",
]  # fmt: skip
DISK = 200_000  # bytes of a file, less than the state of a run takes

Run = Callable[..., Command]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Start a command; its output is in a numbered file."""

    def start(*tokens: str, largest_file: int | None = None) -> Command:
        log = tmp_path / f"{len(list(tmp_path.glob('*.log')))}.log"
        return Command(tokens, log, largest_file)

    return start


def succeed(command: Command) -> str:
    """Wait for a command that must succeed and leave no process; return its output."""
    assert command.wait() == 0, command.output
    assert command.left_behind() == []
    return command.output


@pytest.mark.slow
@pytest.mark.parametrize("format", paint.FORMATS)
def test_a_way_without_conversion(format: str, tmp_path: Path, run: Run) -> None:
    paint.FORMATS[format](tmp_path / "set")
    data = f"data={tmp_path / 'data.yaml'}"
    (tmp_path / "data.yaml").write_text(f"format: {format}\npath: {tmp_path / 'set'}\n")
    inspected = run("inspect", data)
    assert inspected.wait() == 1 and "unreadable.png" in inspected.output

    place = f"project={tmp_path / 'runs'}"
    train_through_three_ends(data, place, tmp_path, run)
    measure_and_compare(data, place, tmp_path, run)


def train_through_three_ends(data: str, place: str, tmp_path: Path, run: Run) -> None:
    """Train, and end the run by Ctrl-C, SIGTERM and a full disk on its way."""
    resume = f"resume={tmp_path / 'runs' / 'x'}"
    training = run("train", *TRAIN, data, place, "name=x", f"epochs={EPOCHS}")
    training.wait_for(f" 2/{EPOCHS} ")
    assert training.stop(signal.SIGINT) == 130, training.output

    training = run("train", resume)
    training.wait_for(f" 4/{EPOCHS} ")
    assert training.stop(signal.SIGTERM) in (130, 143), training.output

    training = run("train", resume, largest_file=DISK)
    assert training.wait() == 2, training.output
    assert training.left_behind() == []
    assert "error: " in training.output.splitlines()[-1]

    assert f" {EPOCHS}/{EPOCHS} " in succeed(run("train", resume))


def measure_and_compare(data: str, place: str, tmp_path: Path, run: Run) -> None:
    """Validate with a report, predict, and read what predict wrote."""
    runs = tmp_path / "runs"
    model = f"model={runs / 'x' / 'weights' / 'best.safetensors'}"
    succeed(run("val", model, data, place, "name=val", "workers=2"))
    assert (runs / "val" / "report.html").exists()

    names = [*paint.SPLITS["val"], "unreadable"]
    listed = [str(next((tmp_path / "set").rglob(f"{name}.png"))) for name in names]
    (tmp_path / "images.txt").write_text("\n".join(listed))
    source = f"source={tmp_path / 'images.txt'}"
    predicted = run("predict", model, source, place, "name=found", "conf=0")
    assert predicted.wait() == 1 and "unreadable.png" in predicted.output, predicted.output
    assert predicted.left_behind() == []

    written = runs / "found" / "predictions.json"
    assert json.loads(written.read_text())
    found = f"predictions={written}"
    succeed(run("val", found, data, place, "name=judged"))
    compared = succeed(run("compare", f"a={runs / 'val'}", f"b={runs / 'judged'}", data))
    assert "AP" in compared


@pytest.mark.slow
@pytest.mark.parametrize("format", paint.FORMATS)
def test_a_way_by_conversion(format: str, tmp_path: Path, run: Run) -> None:
    paint.FORMATS[format](tmp_path / "set")
    out = tmp_path / "converted"
    succeed(run("convert", f"format={format}", f"source={tmp_path / 'set'}", f"out={out}"))
    data, place = f"data={out}", f"project={tmp_path / 'runs'}"
    succeed(run("inspect", data))
    succeed(run("train", *TRAIN, data, place, "name=x", "epochs=1"))
    measure_and_compare(data, place, tmp_path, run)

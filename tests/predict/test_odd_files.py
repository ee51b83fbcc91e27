"""Odd files of every kind in one directory: each is predicted or skipped with one line."""

import csv
import ctypes
import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from rfla import RFLA
from rfla.cli import main


def noise(*shape: int, dtype: Any = np.uint8) -> np.ndarray:
    top = np.iinfo(dtype).max
    return np.random.default_rng(0).integers(0, top, shape, dtype)


def bands(path: Path, count: int) -> None:
    rasterio = pytest.importorskip("rasterio", reason="the extra [geo] is not installed")
    with rasterio.open(
        path, "w", driver="GTiff", height=40, width=50, count=count, dtype="uint8"
    ) as file:
        file.write(noise(count, 40, 50))


def animated(path: Path) -> None:
    frames = [Image.fromarray(part) for part in noise(2, 30, 30, 3)]
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=50)


def pipe_of_socket(path: Path) -> None:
    here = os.getcwd()
    os.chdir(path.parent)  # names of sockets are short
    try:
        socket.socket(socket.AF_UNIX).bind(path.name)
    finally:
        os.chdir(here)


READ: dict[str, Callable[[Path], Any]] = {
    "one.png": lambda p: cv2.imwrite(str(p), noise(1, 1, 3)),
    "thin.png": lambda p: cv2.imwrite(str(p), noise(3, 900, 3)),
    "deep.png": lambda p: cv2.imwrite(str(p), noise(40, 50, 3, dtype=np.uint16)),
    "moving.gif": animated,
    "stack.tif": animated,
    "band1.tif": lambda p: bands(p, 1),
    "space in name ü.png": lambda p: cv2.imwrite(str(p), noise(20, 20, 3)),
}
SKIPPED: dict[str, tuple[Callable[[Path], Any], str]] = {
    "band8.tif": (lambda p: bands(p, 8), "a TIFF of 8 bands"),
    "corrupt.png": (lambda p: p.write_bytes(b"\x89PNG\r\n\x1a\n123"), "truncated PNG"),
    "empty.jpg": (lambda p: p.write_bytes(b""), "empty file"),
    "empty.mp4": (lambda p: p.write_bytes(b""), "not a readable video (empty file)"),
    "page.png": (lambda p: p.write_text("<!doctype html><html>"), "a web page"),
    "pipe.jpg": (os.mkfifo, "is a named pipe"),
    "pipe.mp4": (os.mkfifo, "is a named pipe"),
    "socket.jpg": (pipe_of_socket, "is a socket"),
    "text.mp4": (lambda p: p.write_text("#EXTM3U"), "not a readable video (a text file)"),
}


@pytest.fixture
def odd(tmp_path: Path) -> Path:
    root = tmp_path / "in"
    root.mkdir()
    for name, make in READ.items():
        make(root / name)
    for name, (make, _) in SKIPPED.items():
        make(root / name)
    return root


def test_each_is_predicted_or_named_in_one_line(
    weights: Path, odd: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    settings = [
        "device=cpu",
        "conf=0",
        "max_det=2",
        "verbose=false",
        f"project={tmp_path / 'runs'}",
    ]
    code = main(["predict", f"model={weights}", f"source={odd}", "save_csv", "imgsz=64", *settings])
    out, err = capfd.readouterr()
    lines = [" ".join(line.split()) for line in out.replace("\n", " ").split("skipped: ")[1:]]
    assert code == 1 and err == "" and len(lines) == len(SKIPPED)
    for line, (name, (_, reason)) in zip(lines, sorted(SKIPPED.items()), strict=True):
        assert name in line and reason.replace(" ", "") in line.replace(" ", ""), line
    made = {path.stem for path in (tmp_path / "runs" / "predict").glob("*.png")}
    single = {Path(name).stem for name in READ} - {"moving", "stack"}
    assert made == single | {"moving_000000", "moving_000001", "stack_p1", "stack_p2"}


def test_nothing_can_be_read(weights: Path, odd: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for name in READ:
        (odd / name).unlink()
    project = f"project={odd.parent / 'runs'}"
    assert main(["predict", f"model={weights}", f"source={odd}", "device=cpu", project]) == 2
    assert f"not one image of {len(SKIPPED)} could be read" in capfd.readouterr().err
    assert not (odd.parent / "runs" / "predict").exists()


def test_a_list_of_everything(weights: Path, odd: Path) -> None:
    array = noise(40, 50, 3)
    given = [
        odd / "one.png",
        array,
        torch.from_numpy(array).permute(2, 0, 1),
        Image.fromarray(array),
        str(odd / "stack.tif"),
        odd / "moving.gif",
        str(odd / "th*.png"),
    ]
    found = RFLA(weights).predict(given, device="cpu", conf=0.0, max_det=3)
    names = [(Path(result.path).name, result.frame) for result in found]
    assert names == [
        *(("one.png", None), ("image1", None), ("image2", None), ("image3", None)),
        *(("stack.tif", 0), ("stack.tif", 1), ("moving.gif", 0), ("moving.gif", 1)),
        ("thin.png", None),
    ]
    for result in found[2:4]:
        np.testing.assert_array_equal(result.boxes.xyxy, found[1].boxes.xyxy)


def test_names_that_are_no_text(weights: Path, tmp_path: Path) -> None:
    """In a process of its own, which OpenCV ended where it was given such a name as text."""
    root = tmp_path / "in"
    root.mkdir()
    cv2.imwrite(str(root / "a.png"), noise(64, 64, 3))
    writer = cv2.VideoWriter(str(root / "v.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 10, (64, 48))
    for _ in range(3):
        writer.write(noise(48, 64, 3))
    writer.release()
    for name, new in (("a.png", b"\xff.png"), ("v.avi", b"\xfe.avi")):
        (root / name).rename(root / os.fsdecode(new))
    given = [f"model={weights}", f"source={root}", f"project={tmp_path}", "name=out"]
    settings = ["device=cpu", "conf=0", "max_det=2", "imgsz=64", "save_csv", "save_video"]
    done = subprocess.run(
        [sys.executable, "-m", "rfla", "predict", *given, *settings], capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")
    out = tmp_path / "out"
    names = {f"\ufffd_{frame:06d}.avi" for frame in range(3)} | {"\ufffd.png"}
    assert {row["image_id"] for row in json.loads((out / "predictions.json").read_text())} == names
    with (out / "predictions.csv").open(encoding="utf-8") as table:
        assert {row["image"] for row in csv.DictReader(table)} == names
    assert {b"\xff.png", b"\xfe.mp4"} < set(os.listdir(os.fsencode(out)))


def without_the_rights_of_root() -> None:
    """Let the program that is started next obey the rights of files, as root does not."""
    for right in (1, 2):  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH
        ctypes.CDLL(None).prctl(24, right, 0, 0, 0)  # PR_CAPBSET_DROP; fails for others than root


def test_what_nobody_may_read(weights: Path, tmp_path: Path) -> None:
    """A file, a video, a raster and a directory, one line each; the rest is predicted."""
    root = tmp_path / "in"
    (root / "closed").mkdir(parents=True)
    for name in ("a.png", "b.png", "closed/c.png", "d.tif"):
        cv2.imwrite(str(root / name), noise(64, 64, 3))
    (root / "v.mp4").write_bytes(b"")
    locked = ["b.png", "d.tif", "v.mp4", "closed"]
    for name in locked:
        (root / name).chmod(0)

    def run(source: Path, name: str) -> "subprocess.CompletedProcess[str]":
        given = [f"model={weights}", f"source={source}", f"project={tmp_path}", f"name={name}"]
        settings = ["device=cpu", "conf=0", "max_det=2", "imgsz=64", "slice=64"]
        return subprocess.run(
            [sys.executable, "-m", "rfla", "predict", *given, *settings],
            preexec_fn=without_the_rights_of_root,
            capture_output=True,
            text=True,
            check=False,
        )

    try:
        several, alone = run(root, "several"), run(root / "closed", "alone")
    finally:
        (root / "closed").chmod(0o755)  # pytest removes it
    assert several.returncode == 1 and several.stderr == ""
    skipped = [line for line in several.stdout.splitlines() if line.startswith("skipped: ")]
    reason = "cannot be read (Permission denied)"
    assert skipped == [f"skipped: {root / name}: {reason}" for name in locked]
    assert [path.name for path in (tmp_path / "several").glob("*.png")] == ["a.png"]
    assert alone.returncode == 2 and alone.stderr.strip() == f"error: {root / 'closed'}: {reason}"

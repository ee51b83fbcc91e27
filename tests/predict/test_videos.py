"""Videos and cameras: frame by frame, what breaks off, and what is no video."""

import os
from collections.abc import Iterator
from pathlib import Path
from threading import Event
from typing import Any

import cv2
import numpy as np
import pytest

from rfla import RFLA
from rfla.errors import ConfigError, DataError
from rfla.predict.prefetch import ahead, images_of
from rfla.predict.source_image import Reading, SourceImage
from rfla.predict.sources import find_sources, refuse_endless
from rfla.predict.videos import Camera


def write_video(
    path: Path, frames: int = 10, fps: float = 5.0, size: tuple[int, int] = (64, 48)
) -> Path:
    """Grey frames that become brighter by 10."""
    codec = "MJPG" if path.suffix == ".avi" else "mp4v"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*codec), fps, size)
    for index in range(frames):
        writer.write(np.full((size[1], size[0], 3), (10 * index + 20) % 250, np.uint8))
    writer.release()
    return path


def images(source: object, **how: object) -> list[SourceImage]:
    return list(images_of(find_sources(source), Reading(**how)))  # type: ignore[arg-type]


def failure(source: object) -> str:
    """What is said of a source that yields nothing else."""
    (image,) = images(source)
    with pytest.raises(DataError) as caught:
        image.read()
    return str(caught.value)


@pytest.mark.parametrize("suffix", [".mp4", ".avi"])
def test_every_second_frame_with_its_number_and_time(tmp_path: Path, suffix: str) -> None:
    path = write_video(tmp_path / f"flight{suffix}")
    found = images(path, stride=3)
    assert [image.frame for image in found] == [0, 3, 6, 9]
    assert [image.seconds for image in found] == pytest.approx([0.0, 0.6, 1.2, 1.8])
    shades = [int(image.read().mean()) for image in found]
    assert shades == pytest.approx([20, 50, 80, 110], abs=5)
    assert {image.name for image in found} == {str(path)} and found[0].read().shape == (48, 64, 3)


def test_colours_are_rgb(tmp_path: Path) -> None:
    path = tmp_path / "red.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 5, (64, 48))
    writer.write(np.full((48, 64, 3), (0, 0, 250), np.uint8))
    writer.release()
    assert images(path)[0].read()[20, 20].tolist() == pytest.approx([250, 0, 0], abs=8)


def test_a_video_that_breaks_off_gives_what_can_be_read_and_a_line(tmp_path: Path) -> None:
    whole = write_video(tmp_path / "whole.avi", frames=40)
    cut = tmp_path / "cut.avi"
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    found = images(cut)
    assert 5 < len(found) < 30 and found[3].read().mean() == pytest.approx(50, abs=3)
    with pytest.raises(DataError, match=rf"cut.avi: {len(found) - 1} of 40 frames can be read"):
        found[-1].read()


def test_what_is_no_video(tmp_path: Path) -> None:
    contents = {
        "text.mp4": (b"#EXTM3U\nhttp://127.0.0.1:1/x.ts\n", "a text file"),
        "empty.mp4": (b"", "empty file"),
        "page.mp4": (b"<!doctype html><html>", "a web page"),
        "noise.mkv": (bytes(range(256)) * 8, "no known format"),
        "broken.mp4": (write_video(tmp_path / "w.mp4").read_bytes()[:900], "damaged"),
    }
    for name, (content, reason) in contents.items():
        (tmp_path / name).write_bytes(content)
        line = failure(tmp_path / name)
        assert line.startswith(f"{tmp_path / name}: not a readable video ({reason}"), line
        assert "\n" not in line


def test_a_pipe_is_never_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.mp4")
    write_video(tmp_path / "a.mp4", frames=2)
    *frames, pipe = images(tmp_path)
    assert len(frames) == 2
    with pytest.raises(DataError, match="is a named pipe"):
        pipe.read()


def test_frames_larger_than_max_pixels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_video(tmp_path / "a.mp4")
    monkeypatch.setattr("rfla.data.image_header.MAX_PIXELS", 1000)
    assert "a.mp4: 64 x 48 px are more than max_pixels=1000" in failure(path)


def test_no_camera() -> None:
    (image,) = Camera(77).images(Reading())
    with pytest.raises(DataError, match=r"source=77: no camera 77 on this machine \(there "):
        image.read()
    with pytest.raises(ConfigError, match="a camera has no end; use: for result"):
        refuse_endless([Camera(0)], stream=False)
    refuse_endless([Camera(0)], stream=True)


def test_a_camera_gives_frames_with_the_time_since_it_began(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A video stands for the camera; there is none on a machine that runs tests."""
    path, original = write_video(tmp_path / "a.avi"), cv2.VideoCapture
    monkeypatch.setattr("rfla.predict.videos.require_camera", lambda number: None)
    monkeypatch.setattr(cv2, "VideoCapture", lambda number: original(str(path), cv2.CAP_FFMPEG))
    found = list(Camera(0).images(Reading(stride=4)))
    assert [image.frame for image in found] == [0, 4, 8] and found[0].name == "camera0"
    seconds = [image.seconds for image in found]
    assert seconds == sorted(seconds) and 0 <= seconds[-1] < 60  # type: ignore[type-var, operator]


def test_images_are_read_ahead_but_not_all() -> None:
    """A reader that stops early leaves the rest alone."""
    taken: list[int] = []

    def endless() -> Iterator[int]:
        while True:
            taken.append(1)
            yield len(taken)

    stream = ahead(endless(), 3)
    assert [next(stream), next(stream)] == [1, 2]
    stream.close()
    assert len(taken) <= 2 + 3 + 1  # asked for, waiting, and in the thread's hand


def waiting_pictures(asked: Event, count: int) -> Iterator[np.ndarray]:
    """Yield pictures, each after the result of the one before it was asked for."""
    for shade in range(count):
        if shade:
            assert asked.wait(60)
            asked.clear()
        yield np.full((64, 64, 3), 40 * shade, np.uint8)


@pytest.mark.parametrize("cut", [{}, {"slice": 64, "overlap": 16}])
def test_the_first_result_does_not_wait_for_a_second_picture(
    weights: Path, cut: dict[str, Any]
) -> None:
    asked = Event()
    stream = RFLA(weights).predict(
        waiting_pictures(asked, 3), stream=True, device="cpu", conf=0.0, max_det=2, imgsz=64, **cut
    )
    shades = []
    for result in stream:
        shades.append((result.frame, int(result.orig_img.mean())))
        asked.set()
    assert shades == [(0, 0), (1, 40), (2, 80)]


def test_iterators_of_names_and_of_what_is_no_picture(weights: Path, folder: Path) -> None:
    model, settings = RFLA(weights), {"device": "cpu", "conf": 0.0, "max_det": 2}
    named = model.predict((str(folder / name) for name in ("a.png", "c.png")), **settings)
    assert [Path(result.path).name for result in named] == ["a.png", "c.png"]
    picture = np.zeros((8, 8, 3), np.uint8)
    mixed = model.predict(iter([picture, "a.png", picture]), stream=True, **settings)
    assert [result.frame for result in mixed] == [0, 2]
    listed = model.predict(iter([picture, picture]), **settings)
    assert [result.path for result in listed] == ["image0", "image1"]
    assert list(model.predict(iter([]), stream=True, **settings)) == []

"""What `source=` may be."""

import io
import os
import shutil
from pathlib import Path
from unittest.mock import Mock

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from rfla.errors import DataError
from rfla.predict.names import output_names
from rfla.predict.source_image import Reading, SourceImage
from rfla.predict.sources import find_sources


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("b.png", "a.jpg", "deep/a.png"):
        path = tmp_path / "in" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), np.full((8, 9, 3), 7, np.uint8))
    (tmp_path / "in" / "notes.md").write_text("no image")
    return tmp_path / "in"


def test_directory_with_its_subdirectories_in_order(folder: Path) -> None:
    found = find_sources(folder)
    assert [str(image.relative) for image in found] == ["a.jpg", "b.png", "deep/a.png"]
    assert found[0].read().shape == (8, 9, 3)


def test_file_pattern_and_list(folder: Path, tmp_path: Path) -> None:
    assert [image.name for image in find_sources(str(folder / "b.png"))] == [str(folder / "b.png")]
    found = find_sources(str(folder / "**" / "*.png"))
    assert [image.relative.as_posix() for image in found] == ["b.png", "deep/a.png"]
    listing = tmp_path / "list.txt"
    listing.write_text("\ufeffin/a.jpg\n\nin/b.png\n")  # Windows marks UTF-8; relative to the list
    assert [image.relative.name for image in find_sources(listing)] == ["a.jpg", "b.png"]


def test_a_list_names_files_beside_it_first(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "list.txt").write_text("a.jpg\nelsewhere.png\n")
    monkeypatch.chdir(tmp_path)
    for name in ("a.jpg", "elsewhere.png"):
        cv2.imwrite(name, np.zeros((4, 4, 3), np.uint8))
    found = find_sources(folder / "list.txt")
    assert [Path(image.name) for image in found] == [folder / "a.jpg", Path("elsewhere.png")]


def test_a_pattern_finds_what_a_directory_has_through_links_that_lead_back(folder: Path) -> None:
    (folder / "deep" / "up").symlink_to("..")
    (folder / "self").symlink_to(".")
    (folder / ".hidden").mkdir()
    shutil.copy(folder / "b.png", folder / ".hidden")
    found = find_sources(str(folder / "**" / "*.png"))
    assert [image.relative.as_posix() for image in found] == ["b.png", "deep/a.png"]


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("**/*.png", ["a.png", "x/a.png", "x/y/a.png"]),
        ("**", ["a.png", "x/a.png", "x/y/a.png"]),
        ("x/**/a.*", ["x/a.png", "x/y/a.png"]),
        ("**/x/*.png", ["x/a.png"]),
        ("**/y/**", ["x/y/a.png"]),
        ("*/**/y/a.png", ["link/y/a.png", "x/y/a.png"]),
        ("**/.h/*.png", ["x/.h/a.png"]),
        ("**/**/*.png", ["a.png", "x/a.png", "x/y/a.png"]),
        # a link is entered by its name, but `**` enters no directory twice
        ("lin*/**/*.png", ["link/a.png", "link/y/a.png"]),
        ("**/link/*.png", ["link/a.png"]),
        ("x/*", ["x/a.png"]),  # not the directory x/d.png
    ],
)
def test_patterns_by_hand(tmp_path: Path, pattern: str, found: list[str]) -> None:
    root = tmp_path
    for name in ("a.png", "x/a.png", "x/y/a.png", "x/.h/a.png", "x/y/notes.txt"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"")
    (root / "x/d.png").mkdir()
    (root / "link").symlink_to("x")
    (root / "x/up").symlink_to("..")
    names = [image.name for image in find_sources(f"{root}/{pattern}")]
    assert [name.removeprefix(f"{root}/") for name in names] == found


def test_pictures_of_runs_are_no_images(folder: Path) -> None:
    """A run writes below the directory that it was started in, pictures among other things."""
    run = folder / "runs" / "predict"
    for path in (run / "a.jpg", run / "crops" / "ship" / "a_1.png"):
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), np.zeros((4, 4, 3), np.uint8))
    (run / "args.yaml").write_text("model: fcos_p2\n")
    assert len(find_sources(folder)) == len(find_sources(str(folder / "**" / "*.*g"))) == 3
    assert len(find_sources(run)) == len(find_sources(str(run / "**" / "*.*g"))) == 2
    with pytest.raises(DataError, match="those of runs are left out; name the directory of one"):
        find_sources(folder / "runs")


def test_lists_may_hold_videos_and_addresses(folder: Path, tmp_path: Path) -> None:
    (folder / "f.mp4").write_bytes(b"")
    listing = tmp_path / "list.txt"
    listing.write_text("in/a.jpg\nin/f.mp4\nhttps://a.b/x/c.png?d=1\n")
    found = find_sources(listing)
    assert [type(source).__name__ for source in found] == ["SourceImage", "Video", "WebFile"]
    assert [source.relative.as_posix() for source in found] == ["a.jpg", "f.mp4", "c.png"]
    listing.write_text("ftp://a.b/c.png\n")
    with pytest.raises(DataError, match="addresses"):
        find_sources(listing)


def test_arrays_and_pil() -> None:
    array = np.zeros((5, 6, 3), np.uint8)
    mixed = find_sources([array, Image.new("L", (6, 5)), array[..., 0]])
    assert [(image.name, image.read().shape) for image in mixed] == [
        ("image0", (5, 6, 3)),
        ("image1", (5, 6, 3)),
        ("image2", (5, 6, 3)),
    ]
    assert len(find_sources(array)) == 1


def test_a_pil_image_is_turned_as_its_file_is(tmp_path: Path) -> None:
    """Orientation 6: the camera was turned, a row of the file is a column of the picture."""
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(np.arange(60, dtype=np.uint8).reshape(4, 5, 3)).save(
        tmp_path / "a.png", exif=exif
    )
    (file,), (opened,) = (
        find_sources(source) for source in (tmp_path / "a.png", Image.open(tmp_path / "a.png"))
    )
    assert isinstance(file, SourceImage) and isinstance(opened, SourceImage)
    assert opened.read().shape == (5, 4, 3)
    np.testing.assert_array_equal(opened.read(), file.read())


def test_more_than_8_bits() -> None:
    """1000 of 12 bits is 1000 >> 4 = 62, in an array, a PIL image and another order of bytes.

    With a range of 0 to 2000 it is 127.5, rounded up.
    """
    array = np.full((5, 6), 1000, np.uint16)
    given = [array, array.astype(">u2"), Image.fromarray(array), torch.from_numpy(array)]
    for image in find_sources(given):
        assert np.unique(image.read()).tolist() == [62]
        assert np.unique(image.read((0, 2000))).tolist() == [128]
    (feed,) = find_sources(iter([array]), stream=True)
    (frame,) = feed.images(Reading(value_range=(0, 2000)))
    assert np.unique(frame.read()).tolist() == [128]


def cut_off() -> Image.Image:
    """Return a PIL image whose file ends too early, which shows once it is decoded."""
    file = io.BytesIO()
    Image.effect_noise((64, 64), 90).save(file, "PNG")
    return Image.open(io.BytesIO(file.getvalue()[:-2000]))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda d: None, "source is None, a NoneType; allowed are an image"),
        (lambda d: 5.0, "source is 5.0, a float; allowed are"),
        (lambda d: b"a.png", "a bytes; allowed are"),
        (lambda d: {"a": 1}, "a dict; allowed are"),
        (lambda d: [], "source is an empty list"),
        (lambda d: np.int64(77), "no camera 77 on this machine"),
        (lambda d: "\u00b2", "no such file or directory"),  # a digit, but no number
        (lambda d: torch.zeros(3, 4, 4, dtype=torch.bfloat16), "image 0: cannot be read .*BFloat"),
        (lambda d: [cut_off()], "image 0: cannot be read"),
        (lambda d: torch.empty(3, 4, 4, device="meta"), "image 0: cannot be read"),
        (lambda d: " ", "source is an empty string; allowed are"),
        (lambda d: d / "absent", "no such file or directory"),
        (lambda d: d / "notes.md", "not an image"),
        (lambda d: d / "*.tif", "the pattern matches no image"),
        (lambda d: (d / "empty").mkdir() or d / "empty", "no images in this directory"),
        (
            lambda d: (d / "l.txt").write_text("gone.png\n") and d / "l.txt",
            r"l.txt:1: no such image: gone.png",
        ),
        (lambda d: (d / "l.txt").write_text("\n") and d / "l.txt", "the list names no image"),
        (lambda d: (d / "l.txt").write_bytes(b"\xff\xfe\x00") and d / "l.txt", "not a text file"),
        (
            lambda d: np.zeros((4, 4, 3), np.float32),
            "a uint8 or uint16 array is expected, not float",
        ),
        (lambda d: np.zeros((4, 4, 3), bool), "not bool"),
        (lambda d: np.zeros((0, 4, 3), np.uint8), r"array is expected, not \(0, 4, 3\)"),
        (lambda d: np.zeros((4, 4, 4), np.uint8), r"array is expected, not \(4, 4, 4\)"),
        (lambda d: os.mkfifo(d / "p.png") or d / "p.png", "p.png: is a named pipe"),
        (lambda d: os.mkfifo(d / "l.txt") or d / "l.txt", "l.txt: is a named pipe"),
        (lambda d: "/proc/self/environ", "file of the kernel"),
        (lambda d: "~nobody_there/x.png", "no such file"),
        (lambda d: "file:///etc/x.png", "addresses begin with http:// or https:// and a host"),
        (lambda d: "http:///x.png", "addresses begin with http:// or https:// and a host"),
        (lambda d: "http://[x/a.png", "addresses begin with http:// or https:// and a host"),
        (lambda d: "77", r"source=77: no camera 77 on this machine \("),
        (lambda d: 77, "no camera 77 on this machine"),
    ],
)
def test_what_is_refused(folder: Path, make: object, message: str) -> None:
    with pytest.raises(DataError, match=message):
        find_sources(make(folder))  # type: ignore[operator]


def test_equal_names_are_kept_apart(folder: Path) -> None:
    array = np.zeros((5, 6, 3), np.uint8)
    given = [str(folder / "a.jpg"), str(folder / "deep" / "a.png"), str(folder / "deep"), array]
    images = find_sources(given)
    assert [str(name) for name in output_names(image.relative for image in images)] == [
        "a",
        "a_2",
        "a_3",
        "image3",
    ]


def test_files_of_a_list_are_named_below_the_directory_they_share(folder: Path) -> None:
    images = find_sources([folder / "deep" / "a.png", folder / "a.jpg"])
    assert [image.relative.as_posix() for image in images] == ["deep/a.png", "a.jpg"]
    assert [str(name) for name in output_names(image.relative for image in images)] == [
        "deep/a",
        "a",
    ]


def test_each_of_many_equal_names_is_tried_once(monkeypatch: pytest.MonkeyPatch) -> None:
    tried = Mock(side_effect=Path("x").with_name)
    monkeypatch.setattr(Path, "with_name", lambda _, name: tried(name))
    names = list(output_names([Path("x.png")] * 2000))
    assert len(set(names)) == 2000 and names[-1] == Path("x_2000")
    assert tried.call_count == 1999


def test_long_names_and_names_that_leave_the_directory() -> None:
    names = list(output_names([Path("ü" * 125 + ".png"), Path("../../victim/x.png")]))  # 254 bytes
    assert len(str(names[0]).encode()) == 189 and names[1] == Path("victim/x")


def test_unreadable_kinds_in_a_directory_are_skipped_when_read(folder: Path) -> None:
    os.mkfifo(folder / "pipe.png")
    pipe = next(image for image in find_sources(folder) if image.relative.name == "pipe.png")
    with pytest.raises(DataError, match="is a named pipe"):
        pipe.read()

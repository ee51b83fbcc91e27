"""What `source=` may be."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from rfla.engine.sources import find_images, output_names
from rfla.errors import DataError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("b.png", "a.jpg", "deep/a.png"):
        path = tmp_path / "in" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), np.full((8, 9, 3), 7, np.uint8))
    (tmp_path / "in" / "notes.md").write_text("no image")
    return tmp_path / "in"


def test_directory_with_its_subdirectories_in_order(folder: Path) -> None:
    found = find_images(folder)
    assert [str(image.relative) for image in found] == ["a.jpg", "b.png", "deep/a.png"]
    assert found[0].read().shape == (8, 9, 3)


def test_file_pattern_and_list(folder: Path, tmp_path: Path) -> None:
    assert [image.name for image in find_images(str(folder / "b.png"))] == [str(folder / "b.png")]
    assert len(find_images(str(folder / "**" / "*.png"))) == 2
    listing = tmp_path / "list.txt"
    listing.write_text("in/a.jpg\n\nin/b.png\n")  # relative to the list
    assert [image.relative.name for image in find_images(listing)] == ["a.jpg", "b.png"]


def test_arrays_and_pil() -> None:
    array = np.zeros((5, 6, 3), np.uint8)
    mixed = find_images([array, Image.new("L", (6, 5)), array[..., 0]])
    assert [(image.name, image.read().shape) for image in mixed] == [
        ("image0", (5, 6, 3)),
        ("image1", (5, 6, 3)),
        ("image2", (5, 6, 3)),
    ]
    assert len(find_images(array)) == 1


@pytest.mark.parametrize(
    ("make", "message"),
    [
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
        (lambda d: np.zeros((4, 4, 3), np.float32), "uint8 RGB array is expected"),
        (lambda d: np.zeros((0, 4, 3), np.uint8), "uint8 RGB array is expected"),
    ],
)
def test_what_is_refused(folder: Path, make: object, message: str) -> None:
    with pytest.raises(DataError, match=message):
        find_images(make(folder))  # type: ignore[operator]


def test_equal_names_are_kept_apart(folder: Path) -> None:
    images = find_images(
        [str(folder / "a.jpg"), str(folder / "deep" / "a.png"), str(folder / "deep")]
    )
    assert [str(name) for name in output_names(images)] == ["a", "a_2", "a_3"]

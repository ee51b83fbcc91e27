"""Pages of a TIFF and frames of animations, one by one; damaged ones say why."""

import struct
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from rfla.data.pages import Page, holds_several, read_pages
from rfla.errors import DataError


def pictures(count: int) -> list[Image.Image]:
    return [Image.new("RGB", (12, 8), (40 * index + 10, 0, 0)) for index in range(count)]


def save(path: Path, count: int = 3, **options: object) -> Path:
    first, *rest = pictures(count)
    first.save(path, save_all=True, append_images=rest, **options)  # type: ignore[arg-type]
    return path


def shades(pages: list[Page]) -> list[int]:
    return [int(page.pixels[0, 0, 0]) for page in pages]  # type: ignore[index]


def test_pages_of_a_tiff(tmp_path: Path) -> None:
    path = save(tmp_path / "stack.tif")
    pages = list(read_pages(path, stride=2))
    assert holds_several(path)
    assert [(page.index, page.seconds) for page in pages] == [(0, None), (1, None), (2, None)]
    assert shades(pages) == [10, 50, 90]


def test_pages_of_different_sizes_and_bits(tmp_path: Path) -> None:
    """Each page is read as if it stood alone: its own size, and its own range of values."""
    path = tmp_path / "mixed.tif"
    wide = np.arange(0, 4000, 50, np.uint16).reshape(8, 10)
    assert cv2.imwritemulti(str(path), [np.full((5, 6), 7, np.uint8), wide])
    small, large = read_pages(path)
    assert small.pixels.shape == (5, 6, 3) and large.pixels.shape == (8, 10, 3)  # type: ignore[union-attr]
    assert large.pixels.max() > 200 and "12-bit" in " ".join(large.remarks)  # type: ignore[union-attr]


def test_a_damaged_page_is_named_and_the_others_are_read(tmp_path: Path) -> None:
    path = save(tmp_path / "stack.tif")
    data = bytearray(path.read_bytes())
    # The second directory states a width of 0.
    (at,) = struct.unpack_from("<I", data, 4)
    (entries,) = struct.unpack_from("<H", data, at)
    (second,) = struct.unpack_from("<I", data, at + 2 + 12 * entries)
    (entries,) = struct.unpack_from("<H", data, second)
    for entry in range(second + 2, second + 2 + 12 * entries, 12):
        if struct.unpack_from("<H", data, entry)[0] == 256:
            struct.pack_into("<I", data, entry + 8, 0)
    path.write_bytes(data)
    first, bad, last = read_pages(path)
    assert shades([first, last]) == [10, 90]
    assert str(bad.pixels) == f"{path}: page 2: a TIFF with damaged tags"


@pytest.mark.parametrize("suffix", [".gif", ".png", ".webp"])
def test_frames_of_animations_with_their_time(tmp_path: Path, suffix: str) -> None:
    path = save(tmp_path / f"a{suffix}", count=4, duration=200, lossless=True)
    pages = list(read_pages(path, stride=2))
    assert holds_several(path)
    assert [page.index for page in pages] == [0, 2]
    assert [page.seconds for page in pages] == pytest.approx([0.0, 0.4])
    assert shades(pages) == pytest.approx([10, 90], abs=3)


def test_an_animation_that_breaks_off(tmp_path: Path) -> None:
    path = tmp_path / "a.gif"
    noise = np.random.default_rng(0).integers(0, 255, (4, 60, 60, 3), np.uint8)
    first, *rest = [Image.fromarray(frame) for frame in noise]
    first.save(path, save_all=True, append_images=rest)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 5 // 8])
    *good, bad = read_pages(path)
    assert 1 <= len(good) < 4
    assert isinstance(bad.pixels, DataError) and "and what follows cannot be read" in str(
        bad.pixels
    )


def test_what_holds_one_image_or_none(tmp_path: Path) -> None:
    pictures(1)[0].save(tmp_path / "one.tif")
    (tmp_path / "text.tif").write_text("no image")
    for name in ("one.tif", "text.tif", "absent.tif", "x.jpg"):
        assert not holds_several(tmp_path / name)

"""One range of values for all images of 16 bits of a set."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image as PillowImage

from rfla.data.common_range import CommonRange, find_common_range
from rfla.data.images import read_image


def write(path: Path, *values: int, kind: type = np.uint16) -> str:
    PillowImage.fromarray(np.array([values], kind)).save(path)
    return str(path)


@pytest.mark.parametrize(
    ("highest", "limit"),
    [(0, 255), (200, 255), (300, 511), (3000, 4095), (4096, 8191), (10_215, 16_383)],
)
def test_the_least_number_of_bits_that_holds_all(highest: int, limit: int) -> None:
    assert CommonRange(highest, 3).limits == (0.0, float(limit))


def test_the_brightest_image_decides(tmp_path: Path) -> None:
    """3,000 and 10,215 in two files; one of 8 bits and one that is no image do not count."""
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(30))
    files = [
        write(tmp_path / "a.png", 0, 3000),
        write(tmp_path / "b.tif", 7, 10_215),
        write(tmp_path / "c.png", 0, 255, kind=np.uint8),
        str(tmp_path / "broken.png"),
        str(tmp_path / "missing.png"),
    ]
    found = find_common_range([*files, files[0]])
    assert found == CommonRange(10_215, 2)
    assert found.line() == (
        "16-bit images: values 0 to 16,383 become 0 to 255 in all of them (the highest seen is "
        "10,215); normalize.range= sets other values"
    )
    assert find_common_range(files[2:]) is None and find_common_range([]) is None


def test_pixels_without_data_do_not_count(tmp_path: Path) -> None:
    """GDAL_NODATA of 65,535 beside values up to 3,000: of 12 bits, in a set and in one image."""
    path = tmp_path / "a.tif"
    pixels = np.array([[65_535, 1500, 3000]], np.uint16)
    PillowImage.fromarray(pixels).save(path, tiffinfo={42113: "65535"})
    assert find_common_range([str(path)]) == CommonRange(3000, 1)
    assert read_image(path)[0, :, 0].tolist() == [255, 1500 >> 4, 3000 >> 4]


def test_a_range_that_files_state_is_theirs(tmp_path: Path) -> None:
    """MaxSampleValue 2,047 in the tags of the TIFF."""
    tags = {281: 2047}
    PillowImage.fromarray(np.array([[5, 1000]], np.uint16)).save(tmp_path / "a.tif", tiffinfo=tags)
    assert find_common_range([str(tmp_path / "a.tif")]) is None
    remarks: list[str] = []
    assert read_image(tmp_path / "a.tif", remarks=remarks)[0, 1, 0] == 1000 >> 3  # 11 bits
    assert remarks == []


def test_a_hundred_images_are_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Evenly spread, the first and the last among them."""
    seen = []
    monkeypatch.setattr("rfla.data.common_range.highest_of_16_bits", seen.append)
    find_common_range([f"{number}.png" for number in range(1000)])
    assert len(seen) == 100 and (seen[0], seen[-1]) == ("0.png", "999.png")
    assert seen[50] == "504.png"  # 50 x 999 / 99

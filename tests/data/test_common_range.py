"""One range of values for all images of 16 bits of a set."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image as PillowImage

from rfla.data.common_range import CommonRange, find_common_range
from rfla.data.images import BEYOND, read_image
from rfla.data.pixel_range import Range16


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
    whole = (tmp_path / "a.png").read_bytes()
    for length in (0, 7, 8, 24, 25, 33, len(whole) - 20):  # cut off anywhere
        (tmp_path / f"{length}.png").write_bytes(whole[:length])
        files.append(str(tmp_path / f"{length}.png"))
    found = find_common_range([*files, files[0]])
    assert found == CommonRange(10_215, 2)
    assert found.line() == (
        "2 16-bit images looked at: the highest value is 10,215, so 0 to 16,383 become 0 to 255 in "
        "all; normalize.range= sets other values"
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
    """Evenly spread, the first and the last among them; of large ones as many as are enough."""
    seen: list[str] = []
    monkeypatch.setattr("rfla.data.common_range.highest_of_16_bits", seen.append)
    find_common_range([f"{number}.png" for number in range(1000)])
    assert len(seen) == 100 and {"0.png", "504.png", "999.png"} <= set(seen)  # 50 x 999 / 99
    sizes = iter([(700, 300_000_000), (900, 90_000_000), (800, 10_000_001)])
    monkeypatch.setattr("rfla.data.common_range.highest_of_16_bits", lambda _: next(sizes))
    assert find_common_range([f"{number}.png" for number in range(9)]) == CommonRange(900, 3)


def test_files_of_other_kinds_keep_theirs(tmp_path: Path) -> None:
    """The range of 16-bit images: not of one that states its own, of shares, nor of 8 bits."""
    of_16 = Range16(0, 4095)
    (tmp_path / "stated.tif").touch()
    values = np.array([[0, 1000, 2000]], np.uint16)
    PillowImage.fromarray(values).save(tmp_path / "plain.png")
    PillowImage.fromarray(values).save(tmp_path / "stated.tif", tiffinfo={281: 2047})
    PillowImage.fromarray(np.array([[0.0, 0.5, 1.0]], np.float32)).save(tmp_path / "share.tif")
    expected = {"plain.png": [0, 62, 125], "stated.tif": [0, 125, 250], "share.tif": [0, 128, 255]}
    for name, greys in expected.items():
        image = read_image(tmp_path / name, value_range=of_16)
        assert image[0, :, 0].tolist() == greys, name
    assert read_image(tmp_path / "stated.tif", value_range=(0, 4095))[0, 2, 0] == 125


def test_values_beyond_the_range_are_remarked_on(tmp_path: Path) -> None:
    """Two of 100 pixels are white that had more to say."""
    values = np.linspace(0, 900, 100).astype(np.uint16).reshape(10, 10)
    values[9, 8:] = 5000
    PillowImage.fromarray(values).save(tmp_path / "a.png")
    remarks: list[str] = []
    read_image(tmp_path / "a.png", value_range=Range16(0, 1023), remarks=remarks)
    assert remarks == [BEYOND]


def test_files_of_8_bits_are_told_by_their_first_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = [write(tmp_path / name, 0, 9, kind=np.uint8) for name in ("a.png", "a.tif", "a.jpg")]

    def whole(_: object) -> bytes:
        raise AssertionError("a whole file was read")

    monkeypatch.setattr("rfla.data.images.read_regular", whole)
    assert find_common_range(files) is None

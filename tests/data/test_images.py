"""Every kind of image file becomes upright RGB.

What is no image is refused in one line.
"""

import os
import re
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as PillowImage

from rfla.data.image_header import MAX_PIXELS
from rfla.data.images import (
    BEYOND,
    DARK,
    FEW_BITS,
    MORE_IMAGES,
    NO_CONTRAST,
    image_size,
    read_image,
    require_whole,
    write_image,
)
from rfla.errors import DataError

RED, GREEN = (200, 30, 40), (20, 180, 60)


def two_halves(mode: str = "RGB") -> PillowImage.Image:
    """60 x 40 px, red on the left, green on the right."""
    image = PillowImage.new("RGB", (60, 40), RED)
    image.paste(GREEN, (30, 0, 60, 40))
    return image.convert(mode)


@pytest.mark.parametrize(
    "name",
    ["a.png", "a.jpg", "a.webp", "a.tif", "a.bmp", "bild größe 東京.png", "a b  c.jpg", "a.gif"],
)
def test_formats_and_names(tmp_path: Path, name: str):
    path = tmp_path / name
    two_halves().save(path, **({"quality": 95} if name.endswith(("jpg", "webp")) else {}))
    image = read_image(path)
    assert image.shape == (40, 60, 3) and image.dtype == np.uint8 and image_size(path) == (40, 60)
    np.testing.assert_allclose(image[20, 10], RED, atol=14)
    np.testing.assert_allclose(image[20, 50], GREEN, atol=14)


@pytest.mark.parametrize(
    ("mode", "suffix"),
    [("RGBA", "png"), ("P", "png"), ("CMYK", "jpg"), ("CMYK", "tif"), ("L", "png"), ("LA", "png")],
)
def test_colour_modes(tmp_path: Path, mode: str, suffix: str):
    path = tmp_path / f"a.{suffix}"
    two_halves(mode).save(path)
    image = read_image(path)
    assert image.shape == (40, 60, 3)
    if mode in {"L", "LA"}:
        assert (image[..., 0] == image[..., 1]).all()
    else:
        assert image[20, 10, 0] > image[20, 10, 1] + 60 and image[20, 50, 1] > image[20, 50, 0] + 60


@pytest.mark.parametrize(
    ("highest", "limits", "grey"),
    [
        (255, (0, 255), 100),  # 8 bits kept in 16
        (256, (0, 4095), 100 >> 4),  # a sensor of 10 to 12 bits
        (4095, (0, 4095), 100 >> 4),
        (4096, (0, 65535), 0),
        (65535, (0, 65535), 0),
    ],
)
def test_16_bit_files_hold_8_12_or_16_bits(tmp_path: Path, highest: int, limits, grey: int):
    """So that 12 bits are not read as black; dark ones of 16 bits are remarked on."""
    values = np.full((8, 8), 100, np.uint16)
    values[0, 0] = highest
    for name in ("a.png", "a.tif"):
        PillowImage.fromarray(values).save(tmp_path / name)
        remarks: list[str] = []
        image = read_image(tmp_path / name, remarks=remarks)
        assert image[4, 4].tolist() == [grey] * 3
        assert image[0, 0, 0] == min(highest * 256 // (limits[1] + 1), 255)
        few = limits[1] < 65535
        dark = not few and highest < 1 << 14
        expected = [FEW_BITS.format(bits=int(limits[1]).bit_length())] * few + [DARK] * dark
        assert remarks == expected
        given = read_image(tmp_path / name, value_range=(0, 200), remarks=remarks)
        assert given[4, 4].tolist() == [128] * 3 and remarks == [*expected, BEYOND]


def test_an_image_that_uses_a_hundredth_of_its_range_is_remarked_on(tmp_path: Path):
    values = np.full((8, 8), 5000, np.uint16)
    values[0, 0] = 5100
    PillowImage.fromarray(values).save(tmp_path / "dark.png")
    remarks: list[str] = []
    read_image(tmp_path / "dark.png", remarks=remarks)
    assert remarks == [NO_CONTRAST]


def test_float_rasters_are_no_black_images(tmp_path: Path):
    """Shares, grey levels, and units of their own (here -1000 to 2999, with one outlier)."""
    shares = np.linspace(0, 1, 4000, dtype=np.float32).reshape(50, 80)
    own = shares * 3999 - 1000
    own[25, 40], own[0, 0] = 1e30, np.nan
    for values, middle in ((shares, 128), (shares * 255, 128), (own, 128)):
        PillowImage.fromarray(values).save(tmp_path / "a.tif")
        image = read_image(tmp_path / "a.tif")
        assert image.dtype == np.uint8 and image.shape == (50, 80, 3)
        assert image[0, 1, 0] <= 1 and image[-1, -1, 0] == 255
        assert abs(int(image[25, 0, 0]) - middle) <= 1
    assert image[0, 0, 0] == 0 and image[25, 40, 0] == 255


def raster(pixels: np.ndarray) -> bytes:
    """An uncompressed TIFF of (H, W, bands) numbers of any type."""
    height, width, bands = pixels.shape
    bits, kind = 8 * pixels.itemsize, {"u": 1, "i": 2, "f": 3}[pixels.dtype.kind]
    data = pixels.tobytes()
    many = struct.pack(f"<{2 * bands}H", *[bits] * bands, *[kind] * bands)
    at = 8 + len(data)
    tags = {256: width, 257: height, 259: 1, 262: 1 if bands < 3 else 2, 273: 8, 277: bands}
    tags |= {278: height, 279: len(data)}
    entries = {tag: struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items()}
    for tag, start in ((258, at), (339, at + 2 * bands)):
        value = struct.pack("<I", start) if bands > 2 else many[start - at :][: 2 * bands]
        entries[tag] = struct.pack("<HHI", tag, 3, bands) + value.ljust(4, b"\0")
    directory = b"".join(entry for _, entry in sorted(entries.items())) + bytes(4)
    head = b"II*\0" + struct.pack("<I", at + len(many))
    return head + data + many + struct.pack("<H", len(entries)) + directory


@pytest.mark.parametrize("bands", [1, 3, 4])
@pytest.mark.parametrize("kind", ["u1", "u2", "i2", "u4", "i4", "f4", "f8", "u8"])
def test_rasters_of_any_number_type_are_read(tmp_path: Path, kind: str, bands: int):
    """Of four bands the first three: Pillow cuts 16 bits to their high byte, which is black."""
    ramp = np.linspace(0, 1, 2000).reshape(40, 50, 1) * np.ones(bands)
    highest = {"u1": 255, "u2": 4095, "i2": 4000, "f4": 1, "f8": 1}.get(kind, 70_000)
    (tmp_path / "a.tif").write_bytes(raster((ramp * highest).astype(kind)))
    image = read_image(tmp_path / "a.tif")
    assert image.shape == (40, 50, 3) and image.dtype == np.uint8
    assert image[0, 0].tolist() == [0, 0, 0] and image[-1, -1].tolist() == [255, 255, 255]
    assert (np.diff(image.astype(int).reshape(-1, 3), axis=0) >= 0).all()


@pytest.mark.parametrize(
    ("kind", "bands", "message"),
    [
        ("u2", 2, "a TIFF of 2 bands of 16 bits; gdal_translate -b 1 IN OUT"),
        ("u1", 5, "a TIFF of 5 bands; gdal_translate -b 1 -b 2 -b 3"),
        ("f2", 1, "a TIFF of 16-bit floats; gdal_translate -ot Float32 IN OUT"),
    ],
)
def test_rasters_that_would_be_misread_are_refused(
    tmp_path: Path, kind: str, bands: int, message: str
):
    (tmp_path / "a.tif").write_bytes(raster(np.ones((4, 5, bands), kind)))
    with pytest.raises(DataError, match=re.escape(message)):
        read_image(tmp_path / "a.tif")


def test_further_pages_and_frames_are_remarked_on(tmp_path: Path):
    for name in ("a.tif", "a.gif", "a.png", "a.webp"):
        more = [two_halves().transpose(PillowImage.Transpose.ROTATE_180)] * 2
        two_halves().save(tmp_path / name, save_all=True, append_images=more)
        remarks: list[str] = []
        image = read_image(tmp_path / name, remarks=remarks)
        assert remarks == [MORE_IMAGES] and image[20, 10, 0] > image[20, 10, 1]


@pytest.mark.parametrize(
    ("orientation", "shape"), [(1, (40, 60)), (3, (40, 60)), (6, (60, 40)), (8, (60, 40))]
)
def test_exif_orientation_is_applied(tmp_path: Path, orientation: int, shape: tuple[int, int]):
    path = tmp_path / "a.jpg"
    exif = PillowImage.Exif()
    exif[0x0112] = orientation
    two_halves().save(path, exif=exif, quality=95)
    assert read_image(path).shape[:2] == shape == image_size(path)
    assert read_image(path, exif=False).shape[:2] == (40, 60)
    if orientation == 3:  # upside down: red is on the right
        np.testing.assert_allclose(read_image(path)[20, 50], RED, atol=14)


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("empty.png", b"", "empty file"),
        ("text.png", b"this is no image", "not an image but a text file"),
        ("page.jpg", b"<html>404</html>" * 50, "not an image but a web page"),
        ("lfs.tif", b"version https://git-lfs.github.com/spec/v1\n", "but a Git LFS pointer"),
        ("cut.jpg", "half", "truncated JPEG"),
        ("cut.png", "half", "not a readable image"),
        ("none.png", None, "no such file"),
    ],
)
def test_what_is_no_image(tmp_path: Path, name: str, data: bytes | str | None, message: str):
    path = tmp_path / name
    if data == "half":
        PillowImage.fromarray(
            np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
        ).save(path)
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    elif data is not None:
        path.write_bytes(data)
    with pytest.raises(DataError, match=message) as caught:
        read_image(path)
    assert name in str(caught.value) and "\n" not in str(caught.value)
    if data == b"":
        with pytest.raises(DataError, match="not an image but an empty file"):
            image_size(path)


def test_an_image_is_written_whole_or_not_at_all(tmp_path: Path):
    image = np.random.default_rng(0).integers(0, 255, (20, 30, 3), np.uint8)
    write_image(tmp_path / "a.png", image)
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), image)
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


def test_bands_that_are_not_marked_as_rgb_are_refused(tmp_path: Path):
    """OpenCV would read a raw four-band scene as something else and say nothing."""
    bands = np.arange(4 * 6 * 5, dtype=np.uint8).reshape(6, 5, 4)
    tags = [
        (256, 3, 5),
        (257, 3, 6),
        (258, 3, 8),
        (262, 3, 1),
        (273, 4, 8),
        (277, 3, 4),
        (278, 3, 6),
        (279, 4, 120),
    ]
    entries = b"".join(
        struct.pack("<HHI", tag, kind, 1)
        + struct.pack("<HH" if kind == 3 else "<I", *((value, 0) if kind == 3 else (value,)))
        for tag, kind, value in tags
    )
    header = struct.pack("<2sHI", b"II", 42, 8 + bands.size)
    path = tmp_path / "scene.tif"
    path.write_bytes(
        header + bands.tobytes() + struct.pack("<H", len(tags)) + entries + struct.pack("<I", 0)
    )
    with pytest.raises(DataError, match="not marked as RGB"):
        read_image(path)
    path.write_bytes(
        path.read_bytes().replace(
            struct.pack("<HHIHH", 262, 3, 1, 1, 0), struct.pack("<HHIHH", 262, 3, 1, 2, 0)
        )
    )
    np.testing.assert_array_equal(read_image(path), bands[..., :3])


def png_chunk(kind: bytes, data: bytes, length: int | None = None) -> bytes:
    stated = len(data) if length is None else length
    return struct.pack(">I", stated) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, *, stated_idat: int | None = None) -> bytes:
    """A PNG of zeros, as small as it gets."""
    squeezer = zlib.compressobj(9)
    row = bytes(1 + width // 8 + 1)
    lines = b"".join(squeezer.compress(row) for _ in range(height)) + squeezer.flush()
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    parts = [png_chunk(b"IHDR", header), png_chunk(b"IDAT", lines, stated_idat)]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts) + png_chunk(b"IEND", b"")


READ = """
import resource, sys
from pathlib import Path
from rfla.data.images import image_size, read_image
from rfla.data.scenes import open_scene
from rfla.errors import DataError

before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for name in sys.argv[1:]:
    try:
        read_image(name)
    except DataError as error:
        print(error)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


def test_bombs_are_refused_in_little_memory(tmp_path: Path):
    """Sizes are checked before a decoder starts, and lengths before it reserves them."""
    square = 20_000
    files = {
        "idat.png": png(64, 64, stated_idat=0xFFFFFFF0),
        "large.png": png(square, square),
        "larger.png": png(30_000, 30_000),
        "large.bmp": bmp(square, square),
        "large.gif": b"GIF89a"
        + struct.pack("<HHBBB", 65000, 65000, 0, 0, 0)
        + struct.pack("<cHHHHB", b",", 0, 0, 1, 1, 0)
        + b"\2\1\0\0;",
        "large.jpg": b"\xff\xd8\xff\xc0\0\x0b\x08\xff\xff\xff\xff\x01\x01\x11\0\xff\xd9",
        "large.tif": tiff({256: square, 257: square}),
        "tiles.tif": tiff({256: 64, 257: 64, 322: 1 << 20, 323: 1 << 20}),
    }
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    command = [sys.executable, "-c", READ, *(str(tmp_path / name) for name in files)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    *lines, grown = done.stdout.splitlines()
    assert len(lines) == len(files) and int(grown) < 150, done.stdout
    assert "a chunk of 4,294,967,280 bytes ends after the file" in lines[0]
    for name, line in zip(files, lines, strict=True):
        assert name in line
        assert name == "idat.png" or "more than max_pixels=" in line or "more pixels than" in line


def bmp(width: int, height: int) -> bytes:
    header = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 24, 0, 0, 0, 0, 0, 0)
    return b"BM" + struct.pack("<IHHI", 54, 0, 0, 54) + header


def tiff(tags: dict[int, int]) -> bytes:
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4)


def test_the_budget_of_pixels_is_a_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "a.png"
    two_halves().save(path)
    monkeypatch.setattr("rfla.data.image_header.MAX_PIXELS", 60 * 40 - 1)
    with pytest.raises(DataError, match=r"a\.png: 60 x 40 px are more than max_pixels=2399: raise"):
        read_image(path)
    assert image_size(path) == (40, 60)
    monkeypatch.setattr("rfla.data.image_header.MAX_PIXELS", 60 * 40)
    assert read_image(path).shape == (40, 60, 3)
    assert MAX_PIXELS == 178_956_970


def test_wide_numbers_take_more_of_the_budget(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A compressed TIFF of a few MB could unpack into gigabytes of 64-bit numbers."""
    path = tmp_path / "a.tif"
    path.write_bytes(raster(np.ones((40, 60, 1))))
    monkeypatch.setattr("rfla.data.image_header.MAX_PIXELS", 60 * 40 * 4)
    assert read_image(path).shape == (40, 60, 3)
    monkeypatch.setattr("rfla.data.image_header.MAX_PIXELS", 60 * 40 * 4 - 1)
    with pytest.raises(DataError, match=r"60 x 40 px of 64 bits are more than max_pixels=9599"):
        read_image(path)


def test_what_is_no_regular_file_is_never_opened(tmp_path: Path):
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "zero.png").symlink_to("/dev/zero")
    (tmp_path / "proc.png").symlink_to("/proc/self/maps")
    (tmp_path / "folder.png").mkdir()
    for name, kind in (
        ("pipe.png", "a named pipe"),
        ("zero.png", "a device"),
        ("proc.png", "a file of the kernel"),
        ("folder.png", "a directory"),
    ):
        for read in (read_image, image_size, require_whole):
            with pytest.raises(DataError, match=f"{name}: is {kind}"):
                read(tmp_path / name)


def test_nothing_but_images_is_decoded(tmp_path: Path):
    """PostScript would start an interpreter, whatever the file is called."""
    (tmp_path / "a.png").write_bytes(
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments"
    )
    with pytest.raises(DataError, match="not an image but a text file"):
        read_image(tmp_path / "a.png")

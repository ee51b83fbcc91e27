"""Names of outputs: the same in every process, never two alike, never outside the directory."""

import os
from pathlib import Path, PurePosixPath

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from rfla.predict.download import WebFile
from rfla.predict.names import OutputNames
from rfla.predict.source_image import SourceImage
from rfla.results import Boxes, Results

NO_BOXES = Boxes(
    np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int64), (4, 4)
)
PIXELS = np.zeros((4, 4, 3), np.uint8)


def result(path: str, frame: int | None = None, time: float | None = None) -> Results:
    return Results(PIXELS, path, ("ship",), NO_BOXES, frame=frame, time=time)


def test_pages_and_frames() -> None:
    names = OutputNames([SourceImage("/d/x.tif", Path("town/x.tif"))])
    page = names.of(result("/d/x.tif", 2))
    assert (page.stem, page.image_id) == (Path("town/x_p3"), "town/x_p3.tif")
    frame = names.of(result("/d/x.tif", 12, 0.5))
    assert (frame.stem, frame.frame_of) == (Path("town/x_000012"), Path("town/x"))


def test_a_page_is_not_called_as_another_image() -> None:
    given = [SourceImage(name, Path(name)) for name in ("x.tif", "x_p1.png", "x_p1_.png")]
    names = OutputNames(given)
    assert names.of(result("x.tif", 0)).stem == Path("x_p1__")
    assert names.of(result("x_p1.png")).stem == Path("x_p1")
    names = OutputNames([SourceImage(name, Path(name)) for name in ("x.tif", "x_p3.tif")])
    assert names.of(result("x.tif", 2)).image_id == "x_p3_.tif"
    assert names.of(result("x_p3.tif")).image_id == "x_p3.tif"


def test_images_of_one_name_have_ids_of_their_own() -> None:
    names = OutputNames([SourceImage(f"/{folder}/a.png", Path("a.png")) for folder in "de"])
    assert [names.of(result(f"/{folder}/a.png")).image_id for folder in "de"] == [
        "a.png",
        "a_2.png",
    ]


def test_bytes_that_are_no_text_give_ids_that_files_hold() -> None:
    """The files keep their bytes; ids that become alike are numbered."""
    odd = [os.fsdecode(name) for name in (b"t\xfe/\xff.png", b"t\xfe/\xfe.png")]
    names = OutputNames([SourceImage(name, Path(name)) for name in odd])
    found = [names.of(result(name)) for name in odd]
    assert [name.image_id for name in found] == ["t\ufffd/\ufffd.png", "t\ufffd/\ufffd_2.png"]
    assert [name.stem for name in found] == [Path(name).with_suffix("") for name in odd]


PARTS = st.sampled_from(
    ["a", "x", "x_p1", "x_000001", "x_p1_", "x_2", "..", ".", "crops", "density", "labels", "v1.2"]
) | st.text(
    st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=3
)
PLACES = st.builds(
    lambda parts, suffix: Path(*parts[:-1], f"{parts[-1]}{suffix}"),
    st.lists(PARTS, min_size=1, max_size=3),
    st.sampled_from([".png", ".tif", ".mp4", ".jpg"]),
)


@given(
    st.lists(PLACES, min_size=1, max_size=6),
    st.lists(st.tuples(st.integers(0, 2), st.booleans()), max_size=4),
    st.lists(PARTS, max_size=3),
)
def test_no_two_are_alike_and_none_leaves(
    places: list[Path], frames: list[tuple[int, bool]], ends: list[str]
) -> None:
    sources = [SourceImage(str(number), place) for number, place in enumerate(places)]
    addresses = [WebFile(f"http://a.b/{number}/{end}") for number, end in enumerate(ends)]
    everything = [*sources, *addresses]
    names = OutputNames(everything)
    found = []
    for source in everything:
        found.append(names.of(result(source.name)))
        moments = {(frame, 0.1 if is_video else None) for frame, is_video in frames}
        found += [names.of(result(source.name, *moment)) for moment in moments]
    # A picture of the source and one of its pages are never written both.
    assert len({name.stem for name in found}) == len(found)
    for name in found:
        assert ".." not in name.stem.parts and not name.stem.is_absolute()
        assert PurePosixPath(name.stem).name
        assert name.stem.parts[0] not in ("crops", "density") or len(name.stem.parts) == 1

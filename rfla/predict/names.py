"""How the outputs of images are named: never two alike, never outside the output directory."""

import os
import zlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from rfla.files import as_unicode
from rfla.predict.source_image import Source
from rfla.results import Results

LONGEST = 180  # bytes of an output's name; with page, suffixes and a prefix it fits into 255

DIRECTORIES = ("crops", "density")  # of pictures that are no annotated images


class Name(NamedTuple):
    """How one image is called.

    Attributes:
        order: Place of its source, and of its frame in it.
        stem: Its files below the output directory, without suffix.
        image_id: In `predictions.json` and tables: its place below the source, with suffix.
        frame_of: `stem` of the video that it is a frame of; None for other images.
    """

    order: tuple[int, int]
    stem: Path
    image_id: str
    frame_of: Path | None = None


class OutputNames:
    """Names the results of images, the same in every process.

    Args:
        sources: All sources of the run, in order.
    """

    def __init__(self, sources: Sequence[Source]):
        stems = list(output_names(source.relative for source in sources))
        named = (Path(as_unicode(str(source.relative))) for source in sources)
        identities = [path.as_posix() for path in _apart(named, before_suffix=True)]
        self._taken, self._identities = set(stems), set(identities)
        self._of = {
            source.name: (place, stem, identity)
            for place, (source, stem, identity) in enumerate(
                zip(sources, stems, identities, strict=True)
            )
        }

    def of(self, results: Results) -> Name:
        """Return the name of one image: `x`, page 3 of `x` as `x_p3`, frame 12 as `x_000012`."""
        place, stem, identity = self._of[results.path]
        if results.frame is None:
            return Name((place, 0), stem, identity)
        is_page, mark = results.time is None, results.mark
        own = stem.with_name(f"{stem.name}{mark}")
        while own in self._taken:  # the name of another source
            own = own.with_name(f"{own.name}_")
        path = Path(identity)
        page = path.with_name(f"{path.stem}{mark}{path.suffix}")
        while page.as_posix() in self._identities:
            page = page.with_name(f"{page.stem}_{page.suffix}")
        return Name((place, results.frame), own, page.as_posix(), None if is_page else stem)


def output_names(relatives: Iterable[Path]) -> Iterator[Path]:
    """Yield a picture's name for each image, below the output directory, without suffix.

    Equal names are numbered apart, and names that are too long for a file system are shortened.
    """
    return _apart(_inside(path) for path in relatives)


def _apart(paths: Iterable[Path], before_suffix: bool = False) -> Iterator[Path]:
    """Yield paths, numbered where they would be there twice."""
    taken: set[Path] = set()
    numbers: dict[Path, int] = {}
    for path in paths:
        name, number = path, numbers.get(path, 1)
        while name in taken:
            number += 1
            stem, suffix = (path.stem, path.suffix) if before_suffix else (path.name, "")
            name = path.with_name(f"{stem}_{number}{suffix}")
        numbers[path] = number
        taken.add(name)
        yield name


def _inside(relative: Path) -> Path:
    """Return a path without suffix, below the output directory, with names of a bearable length."""
    named = (*relative.parent.parts, relative.stem)
    parts = [part for part in named if part not in ("..", ".", "", relative.anchor)]
    if len(parts) > 1 and parts[0] in DIRECTORIES:
        parts[0] += "_"
    return Path(*(_shortened(part) for part in parts or ["image"]))


def _shortened(name: str) -> str:
    data = os.fsencode(name)
    if len(data) <= LONGEST:
        return name
    return f"{data[:LONGEST].decode('utf-8', 'ignore')}_{zlib.crc32(data):08x}"

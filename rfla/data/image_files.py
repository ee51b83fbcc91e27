"""Which files are images, and the images below a directory."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

from rfla.files import is_of_kernel

IMAGE_SUFFIXES = frozenset(
    {".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp", ".jp2", ".gif", ".ppm", ".pgm"}
)

RUN_FILE = "args.yaml"  # in the directory of each run, ours and Ultralytics'


def in_run(folder: Path, below: Path) -> bool:
    """Whether a folder is the directory of a run, or in one, that is below another directory."""
    places = (folder, *folder.parents)
    return any((place / RUN_FILE).is_file() for place in places if below in place.parents)


def is_image(path: Path) -> bool:
    """Whether the name looks like an image; hidden files (`._x.png` of a Mac archive) do not."""
    return path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".")


def walk_images(
    directory: Path,
    wanted: Callable[[Path], bool] = is_image,
    *,
    recursive: bool = True,
    closed: Callable[[OSError], object] | None = None,
) -> list[Path]:
    """Return the images below a directory, sorted by path.

    Args:
        directory: Where to look.
        wanted: Which files are listed, by their names.
        recursive: Enter its directories too, as `walk_folders`.
        closed: Called with why a directory cannot be listed.
    """
    found: list[Path] = []
    for folder, files in _walk(directory, closed):
        found += [path for name in files if wanted(path := Path(folder, name))]
        if not recursive:
            break
    return sorted(found)


def walk_folders(directory: Path) -> Iterator[Path]:
    """Yield a directory and those below it.

    Linked directories are entered, after all others, but none twice and none that holds `directory`
    itself; those of the kernel (/proc, /sys) never, where links lead everywhere. Nor are those of
    runs, whose pictures show what was found in others.
    """
    return (Path(folder) for folder, _ in _walk(directory))


def _walk(
    directory: Path, closed: Callable[[OSError], object] | None = None
) -> Iterator[tuple[str, list[str]]]:
    """Yield each directory of `walk_folders` and the names of its files."""
    start = os.path.realpath(directory)
    seen: set[str] = set()
    todo = [str(directory)]
    while todo:
        for folder, names, files in os.walk(todo.pop(0), onerror=closed):
            real = os.path.realpath(folder)
            left_out = bool(seen) and (RUN_FILE in files or Path(start).is_relative_to(real))
            if real in seen or left_out or is_of_kernel(real):
                names.clear()
                continue
            seen.add(real)
            yield folder, files
            todo += [
                link for name in sorted(names) if os.path.islink(link := os.path.join(folder, name))
            ]

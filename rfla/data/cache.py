"""Decoded images kept in memory shared by the workers, or on disk.

An image is (H, W, 3) uint8 RGB. Its bytes do not depend on who decoded it, so two workers that fill
one slot at the same time write the same bytes.
"""

import mmap
import os
import shutil
import tempfile
import weakref
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from rfla.data.data_yaml import cache_directory
from rfla.data.images import Image
from rfla.errors import DataError
from rfla.names import CachePlace

_SHARE = 0.8  # of the free memory or disk that a cache may take
_in_memory: "weakref.WeakSet[MemoryCache]" = weakref.WeakSet()  # of this process


class ImageCache(Protocol):
    """Decoded images by row."""

    def get(self, row: int) -> Image | None:
        """The image of a row, or None while it is not kept."""

    def put(self, row: int, image: Image) -> None:
        """Keep an image."""


def create_cache(kind: CachePlace, image_hw: NDArray[np.int32]) -> ImageCache:
    """A cache for images of the sizes `image_hw` (N, 2), px.

    Raises:
        DataError: The decoded pixels do not fit in the free memory or on the disk.
        ValueError: Another kind.
    """
    if kind not in ("ram", "disk"):
        raise ValueError(f"cache={kind!r}: 'ram' or 'disk' expected")
    return MemoryCache(image_hw) if kind == "ram" else DiskCache(image_hw)


class MemoryCache:
    """All decoded images in one shared anonymous mapping.

    Forked workers fill and read the same pages.
    """

    def __init__(self, image_hw: NDArray[np.int32]) -> None:
        self._image_hw = image_hw
        sizes = image_hw.astype(np.int64).prod(axis=1) * 3
        self._start = np.concatenate([[0], np.cumsum(sizes)])
        # Pages are taken from the system as they are written, not here, so that the system counts
        # as free what other caches of this process (of the other split) have still to fill.
        promised = sum(cache.unfilled for cache in _in_memory)
        # Each process of this machine keeps images of its own.
        share = max(_free_memory() // _processes() - promised, 0)
        _refuse_too_large("memory", int(self._start[-1]), share, "cache=disk or cache=false")
        _in_memory.add(self)
        self._pixels = np.frombuffer(mmap.mmap(-1, max(int(self._start[-1]), 1)), np.uint8)
        self._filled = np.frombuffer(mmap.mmap(-1, max(len(image_hw), 1)), np.uint8)

    @property
    def unfilled(self) -> int:
        """Bytes of the images that are not here yet."""
        return int(np.diff(self._start)[self._filled[: len(self._image_hw)] == 0].sum())

    def get(self, row: int) -> Image | None:
        """The image of a row (a copy is not made; do not write into it), or None."""
        if not self._filled[row]:
            return None
        height, width = (int(side) for side in self._image_hw[row])
        return self._pixels[self._start[row] : self._start[row + 1]].reshape(height, width, 3)

    def put(self, row: int, image: Image) -> None:
        """Keep an image; one that has not the stated size is not kept."""
        if image.shape[:2] == tuple(self._image_hw[row]):
            self._pixels[self._start[row] : self._start[row + 1]] = image.reshape(-1)
            self._filled[row] = 1


class DiskCache:
    """One `.npy` file for each image, in a directory that goes with the process that made it."""

    def __init__(self, image_hw: NDArray[np.int32]) -> None:
        parent = cache_directory() / "decoded"
        parent.mkdir(parents=True, exist_ok=True)
        needed = int(image_hw.astype(np.int64).prod(axis=1).sum() * 3)
        _refuse_too_large(f"disk ({parent})", needed, shutil.disk_usage(parent).free, "cache=false")
        _remove_leftovers(parent)
        self.folder = Path(tempfile.mkdtemp(prefix=f"{os.getpid()}-", dir=parent))
        self._finalizer = weakref.finalize(self, _remove, self.folder, os.getpid())

    def get(self, row: int) -> Image | None:
        """The image of a row, or None."""
        try:
            return np.asarray(np.load(self.folder / f"{row}.npy"), np.uint8)
        except (FileNotFoundError, ValueError):
            return None

    def put(self, row: int, image: Image) -> None:
        """Keep an image; a full disk only means that it is decoded again next time."""
        # Renamed when it is whole: another process may read this row at any moment.
        beside = self.folder / f"{row}.{os.getpid()}.tmp"
        try:
            with beside.open("wb") as file:
                np.save(file, image)
            beside.replace(self.folder / f"{row}.npy")
        except OSError:
            beside.unlink(missing_ok=True)


def _remove(folder: Path, owner: int) -> None:
    if os.getpid() == owner:  # a worker that ends must not remove what the others use
        shutil.rmtree(folder, ignore_errors=True)


def _remove_leftovers(parent: Path) -> None:
    """Caches of processes of this machine that were killed."""
    for folder in parent.iterdir():
        owner = folder.name.partition("-")[0]
        if owner.isdigit() and not Path(f"/proc/{owner}").exists() and Path("/proc/self").exists():
            shutil.rmtree(folder, ignore_errors=True)


def _processes() -> int:
    """How many processes `torchrun` started on this machine, 1 without it."""
    text = os.environ.get("LOCAL_WORLD_SIZE", "")
    return max(int(text), 1) if text.isdecimal() else 1


def _free_memory() -> int:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        return next(
            int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable")
        )
    except (OSError, StopIteration):
        return 1 << 62


def _refuse_too_large(what: str, needed: int, free: int, instead: str) -> None:
    if needed > free * _SHARE:
        gb = 1e9
        raise DataError(
            f"cache: the decoded images need {needed / gb:.1f} GB of {what}, "
            f"{free / gb:.1f} GB are free; use {instead}"
        )

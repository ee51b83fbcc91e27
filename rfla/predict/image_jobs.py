"""Images on their way through a network: read ahead, cut into pieces, put together again.

An image is read whole; one of 100 million px and more goes by windows when slices are asked for, so
that no more than a row of slices is in memory.

Shapes: M slices of an image. Boxes are xyxy px.
"""

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from time import perf_counter
from typing import Any, NamedTuple, Protocol, TypeVar

import numpy as np
from torch import Tensor

from rfla.data.image_header import TooLargeError
from rfla.data.images import Image
from rfla.data.pixel_range import Range
from rfla.data.scenes import RasterScene, open_scene, read_valid
from rfla.data.tiles import Window
from rfla.engine.distributed import World
from rfla.errors import DataError
from rfla.predict.columns import Found
from rfla.predict.merge import TileMerger
from rfla.predict.nodata import without_nodata
from rfla.predict.notes import Notes
from rfla.predict.options import Cut, PredictOptions
from rfla.predict.prefetch import ahead
from rfla.predict.tiles import Mask

S = TypeVar("S")
T = TypeVar("T")

READERS = 4  # images are read ahead by threads; decoding releases the interpreter lock
REDUCED = 4000  # px: long side of the copy that is kept of a scene read by windows


class Picture(Protocol):
    """An image to run on: of a source (`SourceImage`), or of a split."""

    @property
    def name(self) -> str:
        """Its file, or a made-up name."""
        ...

    @property
    def file(self) -> Path | None:
        """The file that it is the whole of; None for pixels and for parts of a file."""
        ...

    @property
    def by_windows(self) -> bool:
        """Whether it is too large to be decoded whole, and can be read by windows."""
        ...

    def read(self, value_range: Range | None, remarks: list[str] | None) -> Image:
        """Return (H, W, 3) uint8 RGB, as `read_image`."""
        ...


class Collected:
    """Keeps the detections of a part of the slices, for the process that merges them."""

    def __init__(self) -> None:
        self.entries: list[tuple[Any, Any, Any]] = []

    def add(self, boxes: Any, scores: Any, labels: Any) -> None:
        """Take the next slice: boxes (n, 4) px of the slice, scores (n,), labels (n,)."""
        self.entries.append((boxes, scores, labels))


@dataclass
class Job:
    """An image on its way.

    Attributes:
        image: Where it comes from.
        pixels: (H, W, 3) uint8 RGB, of a scene read by windows a reduced copy.
        shape: Height and width of the image, px.
        cut: Its slices.
        merger: Takes what is found in them.
        part: Numbers of the slices that are run here.
        done: Those that are through.
        empty: Numbers among them of slices without data, which the network does not see.
        full: Whether a slice reached the limit of boxes.
        milliseconds: Time of each stage so far.
    """

    image: Picture
    pixels: Image
    shape: tuple[int, int]
    cut: Cut
    merger: TileMerger | Collected
    part: range
    done: int = 0
    empty: set[int] = field(default_factory=set)
    full: bool = False
    milliseconds: dict[str, float] = field(default_factory=dict)

    def add(self, output: dict[str, Tensor], milliseconds: dict[str, float], limit: int) -> None:
        """Take the detections of the next slice that the network saw."""
        self._pass_empty()
        for stage, value in milliseconds.items():
            self._took(stage, value)
        scores = output["scores"].float().numpy()
        started = perf_counter()
        self.merger.add(output["boxes"].float().numpy(), scores, output["labels"].numpy())
        self._took("postprocess", 1000 * (perf_counter() - started))
        self.done += 1
        self.full |= len(scores) >= limit

    def _took(self, stage: str, milliseconds: float) -> None:
        self.milliseconds[stage] = self.milliseconds.get(stage, 0.0) + milliseconds

    @property
    def is_done(self) -> bool:
        """Whether all slices that are run here are through."""
        self._pass_empty()
        return self.done == len(self.part)

    @property
    def tiles(self) -> list[list[int]]:
        """The slices that are run here, xyxy px."""
        tiles: list[list[int]] = self.cut.tiles[self.part.start : self.part.stop].tolist()
        return tiles

    def _pass_empty(self) -> None:
        """Take the slices without data that come next."""
        while self.done in self.empty:
            self.merger.add(np.zeros((0, 4)), np.zeros(0), np.zeros(0, np.int64))
            self.done += 1

    def merged(self) -> Found:
        """Return all boxes of the image, px."""
        assert isinstance(self.merger, TileMerger)
        started = perf_counter()
        found = self.merger.merged()
        self._took("postprocess", 1000 * (perf_counter() - started))
        return found


class Opened(NamedTuple):
    """An image in memory.

    Attributes:
        pixels: (H, W, 3) uint8 RGB.
        valid: (H, W) where it has data; None: everywhere.
    """

    pixels: Image
    valid: Mask | None


class Piece(NamedTuple):
    """A slice of an image, or the whole of it."""

    job: Job
    pixels: Image


def pieces(
    images: Iterable[Picture], options: PredictOptions, notes: Notes, waiting: deque[Job]
) -> Iterator[Piece]:
    """Yield the slices of all images one after the other.

    Args:
        images: What to run on; one that cannot be read is noted and left out.
        options: How they are cut.
        notes: Is told what was skipped and shrunk.
        waiting: Gets the images whose slices were begun, in order.
    """
    for image, opened in _read_ahead(images, options, notes):
        if opened is not None:
            yield from _cut(image, opened, options, notes, waiting)
            continue
        try:
            yield from _by_windows(image, options, notes, waiting)
            notes.images += 1
        except DataError as error:
            notes.skipped.append(str(error))
            if waiting and waiting[-1].image is image:
                waiting.pop()


def share_of(images: Sequence[T], batch: int, world: World) -> list[T]:
    """Return this process's images: whole batches, those that one process would make."""
    starts = range(world.rank * batch, len(images), world.size * batch)
    return [image for start in starts for image in images[start : start + batch]]


def _job(
    image: Picture,
    pixels: Image,
    shape: tuple[int, int],
    options: PredictOptions,
    notes: Notes,
) -> Job:
    """Cut an image, and note what its pieces are resized by."""
    gsd = options.ground_of(image.file)
    cut = options.cut(*shape, gsd)
    if gsd is not None:
        notes.resize(gsd, options.trained_gsd)
    long_side = options.long_side(cut, *shape)
    times = max(shape) * (cut.resized or 1) / long_side
    if options.slices is None and times > 1:
        notes.shrink(shape, times)
    is_shared = options.part.of_all > 1
    merger = Collected() if is_shared else options.merger(cut.tiles, shape)
    return Job(image, pixels, shape, cut, merger, options.part.of(len(cut.tiles)))


def _cut(
    image: Picture,
    opened: Opened,
    options: PredictOptions,
    notes: Notes,
    waiting: deque[Job],
) -> Iterator[Piece]:
    """Yield the slices of an image in memory."""
    pixels, valid = opened
    height, width = pixels.shape[:2]
    job = _job(image, pixels, (height, width), options, notes)
    waiting.append(job)
    slices = (
        without_nodata(
            pixels[y1:y2, x1:x2], None if valid is None else valid[y1:y2, x1:x2], options.fill
        )
        for x1, y1, x2, y2 in job.tiles
    )
    yield from _not_empty(job, slices, notes)


def _not_empty(job: Job, slices: Iterable[Image | None], notes: Notes) -> Iterator[Piece]:
    """Yield the slices that hold something; note those that do not."""
    for number, pixels in enumerate(slices):
        if pixels is None:
            job.empty.add(number)
        else:
            yield Piece(job, pixels)
    if job.empty:
        notes.slices += len(job.part)
        notes.empty += len(job.empty)


def _by_windows(
    image: Picture, options: PredictOptions, notes: Notes, waiting: deque[Job]
) -> Iterator[Piece]:
    """Yield the slices of a scene, while one thread, which alone has it open, reads ahead."""
    with readers(1) as reader, ExitStack() as stack:
        opened = open_scene(Path(image.name), options.value_range)
        scene = reader.submit(opened.__enter__).result()
        stack.callback(lambda: reader.submit(opened.__exit__, None, None, None).result())
        if not isinstance(scene, RasterScene):
            raise DataError(f"{image.name}: a scene of this kind is not read by windows")
        overview = reader.submit(scene.reduced, REDUCED).result()
        job = _job(image, overview, (scene.height, scene.width), options, notes)
        waiting.append(job)

        def read(window: Window) -> Image | None:
            return without_nodata(scene.read(window), scene.valid(window), options.fill)

        windows = [(x1, y1, x2, y2) for x1, y1, x2, y2 in job.tiles]
        with closing(_in_turn(reader, read, windows, 2 * options.batch)) as slices:
            yield from _not_empty(job, slices, notes)


@contextmanager
def readers(count: int) -> Iterator[ThreadPoolExecutor]:
    """Give threads that, once left, begin with nothing that still waits for them."""
    pool = ThreadPoolExecutor(count)
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


def _in_turn(
    reader: ThreadPoolExecutor, work: Callable[[S], T], items: Iterable[S], count: int
) -> Generator[T]:
    """Yield the results of some work in order, while the next `count` are being made."""
    remaining = iter(items)
    pending: deque[Future[T]] = deque()
    try:
        while True:
            free = count - len(pending)
            pending += [reader.submit(work, item) for item in islice(remaining, free)]
            if not pending:
                return
            yield pending.popleft().result()
    finally:
        for future in pending:
            future.cancel()


def _read_ahead(
    images: Iterable[Picture], options: PredictOptions, notes: Notes
) -> Iterator[tuple[Picture, Opened | None]]:
    """Yield the images that could be read, in order, while threads read the next ones.

    Nothing is opened where the image is to be read by windows.
    """

    def read(image: Picture) -> tuple[Picture, Opened | None, list[str], bool]:
        remarks: list[str] = []
        try:
            if options.slices is not None and image.by_windows:
                return image, None, remarks, True
            pixels = image.read(options.value_range, remarks)
            return image, Opened(pixels, _valid(image, pixels)), remarks, True
        except DataError as error:
            windows = image.by_windows and isinstance(error, TooLargeError)
            way = "; slice=800 reads it by windows" if windows else ""
            return image, None, [f"{error}{way}"], False

    # The thread waits for a source, so that the first image is out before there is a second one.
    # An image that is cut fills batches by itself, and may be large.
    count = READERS if options.slices is not None else max(options.batch, READERS)
    with (
        readers(READERS) as pool,
        closing(ahead((pool.submit(read, image) for image in images), count)) as futures,
    ):
        for image, opened, remarks, readable in (future.result() for future in futures):
            if not readable:
                notes.skipped += remarks
                continue
            notes.images += opened is not None
            notes.remarks.update(remarks)
            yield image, opened


def _valid(image: Picture, pixels: Image) -> Mask | None:
    """Return where an image in memory has data; None: everywhere."""
    valid = read_valid(image.file) if image.file is not None else None
    return valid if valid is not None and valid.shape == pixels.shape[:2] else None

"""The steps between reading and writing: find images, check sizes, clean boxes, cut tiles."""

import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from rfla.cfg.verbs import ConvertOptions
from rfla.data.formats import FORMATS
from rfla.data.formats.images import FOUND_ELSEWHERE, ImageFinder, clean_name
from rfla.data.image_files import IMAGE_SUFFIXES
from rfla.data.image_header import is_too_large, usual_suffix
from rfla.data.images import Image, is_resized, write_image
from rfla.data.pixel_range import Range
from rfla.data.record import ImageRecord, is_object, largest_areas
from rfla.data.scenes import Scene, WholeScene, open_scene
from rfla.data.tiles import Window, plan_tiles
from rfla.errors import DataError
from rfla.files import as_unicode
from rfla.tools.convert.conversion_report import ConvertReport
from rfla.tools.convert.cut import cut, keeps_empty, tile_name
from rfla.tools.output import place_image

UNUSABLE = "images that cannot be used"
MISSING = "images that are not there"
BORDER = 0.01  # px over the border that is rounding (YOLO's six digits), clipped without a word


@dataclass(frozen=True)
class Job:
    """One conversion: what was asked for, the directory that is written, and the counts.

    Attributes:
        to: Format that is written.
        tile: Side of the tiles, px; 0 keeps whole images.
        overlap: Of neighbouring tiles, px.
        keep_visible: Share of a box in a tile from which it stays an object.
        empty_tiles: Share of the tiles without objects that is kept.
        workers: Threads that write images.
        value_range: Values that become 0 and 255 in images of more than 8 bits.
        folder: The directory.
        report: The counts.
    """

    to: str
    tile: int
    overlap: int
    keep_visible: float
    empty_tiles: float
    workers: int
    value_range: Range | None
    folder: Path
    report: ConvertReport

    @classmethod
    def of(
        cls, options: ConvertOptions, limits: Range | None, folder: Path, report: ConvertReport
    ) -> "Job":
        """Return the conversion that checked options ask for."""
        overlap = options.tile // 4 if options.overlap is None else options.overlap
        return cls(
            options.to,
            options.tile,
            overlap,
            options.keep_visible,
            options.empty_tiles,
            options.workers,
            limits,
            folder,
            report,
        )


class _UnusableImageError(Exception):
    """An image that is left out, with its boxes; the message says which and why."""


def convert_records(
    job: Job, records: Iterable[ImageRecord], folders: Sequence[Path], split: str
) -> Iterator[ImageRecord]:
    """Yield the records of a split as they are to be written; their images are in place.

    Args:
        job: The conversion.
        records: As they were read.
        folders: Where images are looked for, in this order.
        split: Name of the split.

    Raises:
        DataError: Two images that would get one name; a tile outside its picture.
    """
    finder = ImageFinder(folders)
    sources: dict[str, Path] = {}
    with ThreadPoolExecutor(job.workers) as pool:
        for record in records:
            path, elsewhere = finder.locate(record.file_name, record.other_name)
            if path is None:
                _leave_out(job, record, MISSING, f"{record.file_name} of {record.where}")
                continue
            image = Path(path)
            if elsewhere:
                job.report.repair(FOUND_ELSEWHERE, f"{record.file_name} is {image}")
            record.file_name = _name_below_images(record, image, folders)
            for piece in _pieces(job, record, image, split, pool):
                _refuse_same_name(sources, job.to, piece, image)
                yield piece


def _pieces(
    job: Job, record: ImageRecord, image: Path, split: str, pool: ThreadPoolExecutor
) -> Iterator[ImageRecord]:
    """Put one image in place and yield its records; one that cannot be used is left out."""
    try:
        with _open(image, job.value_range) as scene:
            yield from _place(job, record, image, scene, split, pool)
    except _UnusableImageError as error:
        _leave_out(job, record, UNUSABLE, str(error))


def _leave_out(job: Job, record: ImageRecord, reason: str, where: str) -> None:
    """Count an image that is not written, and its boxes."""
    job.report.drop(reason, where)
    if len(record):
        job.report.drop(f"boxes of {reason}", record.place(0), len(record))


@contextmanager
def _open(image: Path, value_range: Range | None) -> Iterator[Scene]:
    with ExitStack() as stack:
        try:
            scene = stack.enter_context(open_scene(image, value_range))
        except DataError as error:
            raise _UnusableImageError(str(error)) from None
        yield scene


def _name_below_images(record: ImageRecord, image: Path, folders: Sequence[Path]) -> str:
    """Return an image's name below `images/{split}`: with its directories, but for `images`.

    Of an absolute path, those below the one of `folders` that holds it.
    """
    name = record.file_name
    if os.path.isabs(name):
        places = (folder.absolute() for folder in folders)
        inside = (os.path.relpath(name, place) for place in places if image.is_relative_to(place))
        name = next(inside, name)
    directories = clean_name(name).parent.parts
    own = clean_name(image.name).name  # of a file from Windows a backslash parts directories
    parts = [*(part for part in directories if part.lower() != "images"), own]
    return as_unicode("/".join(parts))


def _refuse_same_name(sources: dict[str, Path], to: str, piece: ImageRecord, image: Path) -> None:
    """Refuse a second picture of one name, or one that would share another's label file.

    Args:
        sources: The image behind each name so far.
        to: Format that is written.
        piece: What is to be written.
        image: The file that it comes from.

    Raises:
        DataError: With both files. (COCO and its kin may list one file twice.)
    """
    name = clean_name(piece.file_name)
    key = str(name)
    own_label_file = FORMATS[to].label_file_of_each_image
    if own_label_file:
        # Label files are named after the image: in YOLO below the same directories.
        key = str(name.with_suffix("")) if to == "yolo" else name.stem
    first = sources.setdefault(key, image)
    if first is image or (not own_label_file and first.samefile(image)):
        return
    what = f"the label file of {key}" if own_label_file else f"images/{name}"
    raise DataError(
        f"{piece.where}: {image} and {first} would both become {what}; rename one of them"
    )


def _place(
    job: Job, record: ImageRecord, image: Path, scene: Scene, split: str, pool: ThreadPoolExecutor
) -> Iterator[ImageRecord]:
    """Put one image in place, whole or in tiles, and yield what is to be written of it."""
    folder = job.folder / "images" / split
    scene = _as_annotated(record, scene, job.value_range)
    # What the record is about, in px of the picture: TinyPerson's records are windows themselves.
    frame = record.window or (0, 0, scene.width, scene.height)
    record = clean(_at_size_of_picture(job, record, frame, scene), job.report)
    if job.tile or record.window is not None:
        yield from _cut_tiles(job, record, image, scene, frame, folder, pool)
        return
    if scene.rewritten:
        job.report.repair(f"images {scene.rewritten}", str(image))
        record.file_name = str(clean_name(record.file_name).with_suffix(".png"))
        _write(scene, (0, 0, record.width, record.height), folder / record.file_name)
    else:
        if PurePosixPath(record.file_name).suffix.lower() not in IMAGE_SUFFIXES:
            record.file_name += usual_suffix(image)  # or whoever looks for images passes it over
        place_image(image, folder / record.file_name)
        if is_too_large(scene.width, scene.height):
            job.report.too_large[str(image)] += 1
    job.report.add(record, split)
    yield record


def _cut_tiles(
    job: Job,
    record: ImageRecord,
    image: Path,
    scene: Scene,
    frame: Window,
    folder: Path,
    pool: ThreadPoolExecutor,
) -> Iterator[ImageRecord]:
    """Write the tiles of a record and yield theirs.

    Args:
        job: The conversion.
        record: In px of its frame.
        image: The file.
        scene: Its pixels.
        frame: Where the record lies in its picture, px.
        folder: Where tiles are written.
        pool: Threads that write them.
    """
    windows = [_whole(record)]
    if job.tile:
        tiles = plan_tiles(record.height, record.width, job.tile, job.overlap).tolist()
        windows = [(x1, y1, x2, y2) for x1, y1, x2, y2 in tiles]
    pending: list[Future[None]] = []
    for window in windows:
        tile = _tile(record, window, frame, job.keep_visible)
        empty = job.tile and not _has_objects(tile)
        if empty and not keeps_empty(tile.file_name, job.empty_tiles):
            job.report.drop("tiles without objects (empty_tiles)", f"{image} at {tile.window}")
            continue
        target = folder / tile.file_name
        target.parent.mkdir(parents=True, exist_ok=True)
        pixels = _pixels(scene, tile.window or window)
        pending.append(pool.submit(write_image, target, pixels))
        if len(pending) >= 2 * job.workers:  # a bound, so that no scene piles up in memory
            pending.pop(0).result()
        job.report.add(tile, folder.name)
        yield tile
    for future in pending:
        future.result()


def _as_annotated(record: ImageRecord, scene: Scene, value_range: Range | None) -> Scene:
    """Return the picture that the boxes were drawn on.

    That is the pixels as stored, without their EXIF orientation, where only they have the stated
    size.
    """
    stated, found = (record.width, record.height), (scene.width, scene.height)
    turned = stated == found[::-1] != found
    if not turned or record.window is not None:
        return scene
    stored = WholeScene(scene.path, exif=False, value_range=value_range)
    return stored if (stored.width, stored.height) == stated else scene


def _write(scene: Scene, window: Window, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    write_image(target, _pixels(scene, window))


def _pixels(scene: Scene, window: Window) -> Image:
    try:
        return scene.read(window)
    except DataError as error:
        raise _UnusableImageError(str(error)) from None


def _whole(record: ImageRecord) -> Window:
    return (0, 0, record.width, record.height)


def _tile(record: ImageRecord, window: Window, frame: Window, keep_visible: float) -> ImageRecord:
    """Return the part of a record in a window, named after its place in the whole picture."""
    left, top = frame[0], frame[1]
    tile = cut(record, window, keep_visible)
    x1, y1, x2, y2 = window
    tile.window = (x1 + left, y1 + top, x2 + left, y2 + top)
    if record.window is not None and window == _whole(record):
        # A tile of the source itself: nothing was cut, so its ids hold.
        tile.ids, tile.image_id = record.ids, record.image_id
    tile.file_name = tile_name(str(clean_name(record.file_name)), tile.window)
    return tile


def _has_objects(record: ImageRecord) -> bool:
    return bool(is_object(record).any())


def _at_size_of_picture(job: Job, record: ImageRecord, frame: Window, scene: Scene) -> ImageRecord:
    """Return a record in px of its picture: boxes are scaled where it was resized since.

    Raises:
        DataError: A frame that is not inside the picture.
    """
    if frame[2] > scene.width or frame[3] > scene.height:
        raise DataError(
            f"{record.where}: tile {frame} of {record.file_name} is not inside its "
            f"{scene.width} x {scene.height} px"
        )
    width, height = frame[2] - frame[0], frame[3] - frame[1]
    if record.width and record.height and (width, height) != (record.width, record.height):
        stated = (
            f"{record.file_name}: {record.width} x {record.height} stated, "
            f"{width} x {height} in the file"
        )
        if not is_resized((record.height, record.width), (height, width)):
            raise _UnusableImageError(stated)
        what = "images that were resized after they were annotated: boxes scaled"
        job.report.repair(what, stated)
        record = record.scaled(width / record.width, height / record.height)
    record.width, record.height = width, height
    return record


def clean(record: ImageRecord, report: ConvertReport) -> ImageRecord:
    """Drop boxes that are none and clip the others to the image; every one is counted.

    Args:
        record: With its true size.
        report: Where to count.
    """
    with np.errstate(over="ignore"):  # files can state 1e308 px
        sides = record.boxes[:, 2:] - record.boxes[:, :2]
    clipped = np.clip(record.boxes, 0, np.array([record.width, record.height] * 2, np.float64))
    outside = ((clipped[:, 2:] - clipped[:, :2]) <= 0).any(axis=1)
    keep = np.ones(len(record), np.bool_)
    for reason, bad in (
        ("boxes of negative size", (sides < 0).any(axis=1)),
        ("boxes without width or height", (sides == 0).any(axis=1)),
        ("boxes outside their image", outside),
    ):
        rows = np.flatnonzero(bad & keep)
        if len(rows):
            report.drop(reason, record.place(int(rows[0])), len(rows))
            keep[rows] = False
    over = np.flatnonzero(keep & (np.abs(clipped - record.boxes) > BORDER).any(axis=1))
    if len(over):
        reason = "boxes over the border of their image: clipped"
        report.repair(reason, record.place(int(over[0])), len(over))
        if "area" in record.attributes:
            record.attributes["area"][over] = np.nan
    record.boxes = np.where(keep[:, None], clipped, record.boxes)
    record = record if keep.all() else record.select(keep)
    _count_areas(record, report)
    return record


def _count_areas(record: ImageRecord, report: ConvertReport) -> None:
    """Count stated areas that their boxes cannot hold; the writer takes width x height instead."""
    if "area" not in record.attributes:
        return
    area = record.attributes["area"]
    possible = (area > 0) & (area <= largest_areas(record.boxes))
    wrong = np.flatnonzero(np.isfinite(area) & ~possible)
    if len(wrong):
        reason = "stated areas that their box cannot hold: width x height taken"
        report.repair(reason, record.place(int(wrong[0])), len(wrong))

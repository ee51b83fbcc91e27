"""The steps between reading and writing a data set: find images, check sizes, clean boxes, cut tiles, place images."""

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rfla.cfg.verbs import ConvertOptions
from rfla.data.formats import FORMATS
from rfla.data.formats.images import ImageFinder, clean_name
from rfla.data.images import Image, is_resized, write_image
from rfla.data.record import NO_CLASS, ImageRecord
from rfla.data.scenes import Scene, WholeScene, open_scene
from rfla.data.tiles import Window, plan_windows
from rfla.errors import DataError
from rfla.tools.convert.conversion_report import ConvertReport
from rfla.tools.convert.cut import cut, keeps_empty
from rfla.tools.output import place_image

UNUSABLE = "images that cannot be used"
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
        folder: The directory.
        report: The counts.
    """

    to: str
    tile: int
    overlap: int
    keep_visible: float
    empty_tiles: float
    workers: int
    folder: Path
    report: ConvertReport

    @classmethod
    def of(cls, options: ConvertOptions, folder: Path, report: ConvertReport) -> "Job":
        """Return the conversion that checked options ask for."""
        overlap = options.tile // 4 if options.overlap is None else options.overlap
        return cls(
            options.to,
            options.tile,
            overlap,
            options.keep_visible,
            options.empty_tiles,
            options.workers,
            folder,
            report,
        )


def convert_records(
    job: Job, records: Iterable[ImageRecord], folders: Sequence[Path], split: str
) -> Iterator[ImageRecord]:
    """Yield the records of a split as they are to be written.

    Their images, looked for in `folders`, are in place.
    """
    finder = ImageFinder(folders)
    taken: dict[str, Path] = {}
    with ThreadPoolExecutor(job.workers) as pool:
        for record in records:
            image = (
                finder.find(record.file_name)
                or (record.other_name and finder.find(record.other_name))
                or None
            )
            if image is None:
                _leave_out(
                    job,
                    record,
                    "images that are not there",
                    f"{record.file_name} of {record.where}",
                )
                continue
            record.file_name = _output_name(record, image)
            try:
                with _opened(image) as scene:
                    for piece in _pieces(job, record, image, scene, split, pool):
                        _claim(taken, job.to, piece, image)
                        yield piece
            except _UnreadableImage as error:
                _leave_out(job, record, UNUSABLE, str(error))


def _leave_out(job: Job, record: ImageRecord, reason: str, where: str) -> None:
    job.report.drop(reason, where)
    if len(record):
        job.report.drop(f"boxes of {reason}", record.place(0), len(record))


@contextmanager
def _opened(image: Path) -> Iterator[Scene]:
    with ExitStack() as stack:
        try:
            scene = stack.enter_context(open_scene(image))
        except DataError as error:
            raise _UnreadableImage(str(error)) from None
        yield scene


class _UnreadableImage(Exception):
    """An image that is left out, with its boxes; the message says which and why."""


def _output_name(record: ImageRecord, image: Path) -> str:
    """Return the image's name below `images/{split}`: with its directories, but for one that is called `images`."""
    relative = clean_name(record.file_name)
    return "/".join(
        [*(part for part in relative.parent.parts if part.lower() != "images"), image.name]
    )


def _claim(taken: dict[str, Path], to: str, piece: ImageRecord, image: Path) -> None:
    """Refuse a second picture of one name, or one that would share another's label file.

    Raises:
        DataError: With both files. (COCO and its kin may list one file twice.)
    """
    name = clean_name(piece.file_name)
    own_label_file = FORMATS[to].label_file_of_each_image
    key = (
        str(name)
        if not own_label_file
        else str(name.with_suffix(""))
        if to == "yolo"
        else name.stem
    )
    first = taken.setdefault(key, image)
    if first is image or (not own_label_file and first.samefile(image)):
        return
    what = f"the label file of {key}" if own_label_file else f"images/{name}"
    raise DataError(
        f"{piece.where}: {image} and {first} would both become {what}; rename one of them"
    )


def _pieces(
    job: Job, record: ImageRecord, image: Path, scene: Scene, split: str, pool: ThreadPoolExecutor
) -> Iterator[ImageRecord]:
    folder = job.folder / "images" / split
    scene = _as_annotated(record, scene)
    frame = record.window or (
        0,
        0,
        scene.width,
        scene.height,
    )  # what the record is about, in px of the picture
    record = clean(_at_size(job, record, frame, scene), job.report)
    if not job.tile and record.window is None and not scene.rewritten:
        place_image(image, folder / record.file_name)
        job.report.add(record, split)
        yield record
        return
    if not job.tile and record.window is None:
        job.report.repair(f"images {scene.rewritten}", str(image))
    windows = (
        plan_windows(record.width, record.height, job.tile, job.overlap)
        if job.tile
        else [_whole(record)]
    )
    pending: list[Future[None]] = []
    for window in windows:
        piece = (
            _piece(record, window, frame, job.keep_visible)
            if job.tile or record.window
            else _as_png(record)
        )
        if (
            job.tile
            and not _has_objects(piece)
            and not keeps_empty(piece.file_name, job.empty_tiles)
        ):
            job.report.drop("tiles without objects (empty_tiles)", f"{image} at {piece.window}")
            continue
        pixels = _pixels(scene, piece.window or window)
        (folder / piece.file_name).parent.mkdir(parents=True, exist_ok=True)
        pending.append(pool.submit(write_image, folder / piece.file_name, pixels))
        if len(pending) >= 2 * job.workers:  # a bound, so that no scene piles up in memory
            pending.pop(0).result()
        job.report.add(piece, split)
        yield piece
    for future in pending:
        future.result()


def _as_annotated(record: ImageRecord, scene: Scene) -> Scene:
    """Return the scene that the boxes were drawn on: the pixels as stored where only they have the stated size."""
    stated = (record.width, record.height)
    turned = stated == (scene.height, scene.width) != (scene.width, scene.height)
    if not (turned and isinstance(scene, WholeScene) and record.window is None):
        return scene
    stored = WholeScene(scene.path, exif=False)
    return stored if (stored.width, stored.height) == stated else scene


def _pixels(scene: Scene, window: Window) -> Image:
    try:
        return scene.read(window)
    except DataError as error:
        raise _UnreadableImage(str(error)) from None


def _whole(record: ImageRecord) -> Window:
    return (0, 0, record.width, record.height)


def _piece(record: ImageRecord, window: Window, frame: Window, keep_visible: float) -> ImageRecord:
    """Cut a window out of a record.

    `frame` is where the record lies in its picture, and names the piece.
    """
    left, top = frame[0], frame[1]
    piece = cut(record, window, keep_visible)
    x1, y1, x2, y2 = window
    piece.window = (x1 + left, y1 + top, x2 + left, y2 + top)
    if record.window is not None and window == _whole(
        record
    ):  # a tile of the source itself: nothing was cut
        piece.ids, piece.image_id = record.ids, record.image_id
    stem = clean_name(record.file_name)
    piece.file_name = str(stem.with_name(f"{stem.stem}__{piece.window[0]}_{piece.window[1]}.png"))
    return piece


def _as_png(record: ImageRecord) -> ImageRecord:
    """Return a record whose image keeps its name but for the suffix."""
    record.file_name = str(clean_name(record.file_name).with_suffix(".png"))
    return record


def _has_objects(record: ImageRecord) -> bool:
    return bool((~record.ignore & (record.labels != NO_CLASS)).any())


def _at_size(job: Job, record: ImageRecord, frame: Window, scene: Scene) -> ImageRecord:
    """Return a record in px of its picture: where the picture was resized since it was annotated, boxes are scaled."""
    if frame[2] > scene.width or frame[3] > scene.height:
        raise DataError(
            f"{record.where}: tile {frame} of {record.file_name} is not inside its {scene.width} x {scene.height} px"
        )
    size = (frame[2] - frame[0], frame[3] - frame[1])
    if record.width and record.height and size != (record.width, record.height):
        stated = f"{record.file_name}: {record.width} x {record.height} stated, {size[0]} x {size[1]} in the file"
        if not is_resized((record.height, record.width), size[::-1]):
            raise _UnreadableImage(stated)
        job.report.repair(
            "images that were resized after they were annotated: boxes scaled", stated
        )
        record = record.scaled(size[0] / record.width, size[1] / record.height)
    record.width, record.height = size
    return record


def clean(record: ImageRecord, report: ConvertReport) -> ImageRecord:
    """Drop boxes that are none and clip the others to the image; every one is counted.

    Args:
        record: With its true size.
        report: Where to count.
    """
    sides = record.boxes[:, 2:] - record.boxes[:, :2]
    low, high = np.zeros(4), np.array([record.width, record.height] * 2, np.float64)
    clipped = np.clip(record.boxes, low, high)
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
        report.repair(
            "boxes over the border of their image: clipped", record.place(int(over[0])), len(over)
        )
        if "area" in record.attributes:
            record.attributes["area"][over] = np.nan
    record.boxes = np.where(keep[:, None], clipped, record.boxes)
    _count_areas(record, keep, report)
    return record if keep.all() else record.select(keep)


def _count_areas(
    record: ImageRecord, keep: np.ndarray[Any, np.dtype[np.bool_]], report: ConvertReport
) -> None:
    if "area" not in record.attributes:
        return
    area = record.attributes["area"]
    most = (record.boxes[:, 2:] - record.boxes[:, :2]).prod(axis=1) * (1 + 1e-6)
    wrong = np.flatnonzero(keep & np.isfinite(area) & ((area <= 0) | (area > most)))
    if len(wrong):
        report.repair(
            "stated areas that their box cannot hold: width x height taken",
            record.place(int(wrong[0])),
            len(wrong),
        )

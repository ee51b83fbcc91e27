"""A split of a data set -> flat arrays for training and evaluation: images found, boxes cleaned."""

import logging
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rfla.data.annotations import MISSING, Annotations, first_place, join
from rfla.data.data_yaml import SplitSource
from rfla.data.formats import FORMATS
from rfla.data.formats.images import FOUND_ELSEWHERE, ImageFinder
from rfla.data.formats.yolo import label_path
from rfla.data.images import image_size
from rfla.data.pixel_range import Range
from rfla.data.record import Classes, is_object
from rfla.data.spec import DataSpec
from rfla.data.training_boxes import MIN_SIDE, at_least_min_side, clipped_boxes, repeated_boxes
from rfla.errors import DataError

log = logging.getLogger("rfla.data")

UNSIZED = "images without width and height in the file, read from the image"


def load_index(
    spec: DataSpec,
    split: str,
    *,
    for_training: bool = False,
    fraction: float = 1.0,
    single_cls: bool = False,
    strict: bool = True,
    need_images: bool = True,
    value_range: Range | None = None,
) -> Annotations:
    """Read one split, or joined ones, into flat arrays.

    For evaluation every box stays as it is written; only boxes that are none (not finite, negative
    sides) are dropped. For training boxes are clipped to the image, and those with a side under 1
    px or without area are dropped, as in the official parse, and repeated rows are merged.
    Everything dropped is counted and logged once.

    Args:
        spec: From `load_data_spec`.
        split: A split, `a+b`, or `trainval`.
        for_training: Apply the training rules.
        fraction: Share of the images up to 1, or how many of them above 1; always the same ones,
            drawn at random.
        single_cls: Give every box label 0, class "object".
        strict: Refuse malformed rows and unknown classes; otherwise leave them out and count them.
        need_images: Leave out images without a file; otherwise the annotations are enough, where
            sizes stand in them.
        value_range: As in `Annotations`.

    Raises:
        DataError: Missing files, malformed rows (with file and line), unknown classes, no image at
            all.
    """
    parts = [_load_part(spec, spec.splits[part], strict, need_images) for part in spec.parts(split)]
    index = _without_what_is_no_box(join(parts, f"{spec.name}/{split}"))
    index = replace(index, value_range=value_range)
    if fraction != 1.0:
        index = index.take(_share(len(index), fraction))
    if single_cls:
        index = replace(
            index, names=("object",), category_ids=(1,), labels=np.minimum(index.labels, 0)
        )
    if for_training:
        index = _training_rules(index)
    if index.counts and strict:
        log.warning(index.summary())
    return index


def require_objects(spec: DataSpec, split: str, index: Annotations) -> None:
    """Refuse a split in which nothing can be learned or judged.

    Raises:
        DataError: No box is an object; with the place where labels were looked for.
    """
    if is_object(index).any():
        return
    source = spec.splits[spec.parts(split)[0]]
    place = source.annotations
    if place is None:
        place = label_path(Path(str(index.paths[0])))
        if not place.exists():
            place = Path(f"{place} (no such file)")
    reasons = [f"{count:,} {what}" for what, count in index.counts.items() if "box" in what]
    why = "; " + "; ".join(reasons) if reasons else ""
    regions = "; all boxes are ignored regions or crowds" if len(index.boxes) else ""
    raise DataError(
        f"{index.name}: no boxes to train on or to evaluate in {len(index):,} images; labels were "
        f"looked for in {place}{why}{regions}"
    )


def _load_part(spec: DataSpec, source: SplitSource, strict: bool, need_images: bool) -> Annotations:
    """Read one split, with absolute paths and the sizes of all images."""
    annotations = source.part.annotations
    for path in [*annotations, *(source.images if need_images or not annotations else ())]:
        if not path.exists():
            raise spec.missing(path)
    kind = FORMATS[source.format]
    index = kind.read(source.part, _classes(spec, source), to_write=False, strict=strict)
    if not len(index):
        raise DataError(
            f"{spec.source}: no images in {annotations[0] if annotations else spec.name}"
        )
    index.counts.update(index.dropped)
    if source.format == "yolo":  # which lists the images themselves, and opens them
        return replace(index, image_hw=np.maximum(index.image_hw, 1))
    return _with_sizes(_found(spec, index, source, need_images))


def _classes(spec: DataSpec, source: SplitSource) -> Classes | None:
    """The class table: the names of the data YAML, else what the files of all splits name."""
    if spec.names:
        return Classes(list(spec.names))
    kind = FORMATS[source.format]
    if kind.states_classes:
        return None
    parts = [split.part for split in spec.splits.values() if split.format == source.format]
    there = [
        part for part in parts if all(path.exists() for path in part.annotations + part.images)
    ]
    return kind.classes(there)


def _found(
    spec: DataSpec, index: Annotations, source: SplitSource, need_images: bool
) -> Annotations:
    """The index with absolute paths; images without a file are left out where they are needed."""
    folders = [folder for folder in source.images if folder.is_dir()] or list(source.images)
    finder = ImageFinder(folders)
    paths, odd = finder.paths(index.paths.tolist(), index.other_names)
    if odd:
        index.note(FOUND_ELSEWHERE, odd[0], len(odd))
    present = np.array([path is not None for path in paths], np.bool_)
    written = [
        path or os.path.join(folders[0], name)
        for path, name in zip(paths, index.paths.tolist(), strict=True)
    ]
    index = replace(index, paths=np.array(written, np.str_))
    if present.all() or not need_images:
        return index
    first = str(index.paths[int(np.argmin(present))])
    if not present.any():
        raise spec.missing(Path(first))
    index.note(MISSING, first, int((~present).sum()))
    return index.take(np.flatnonzero(present))


def _with_sizes(index: Annotations) -> Annotations:
    """The index with the size of each image: where no annotation states it, that of its header."""
    unknown = np.flatnonzero((index.image_hw < 1).any(axis=1))
    if not len(unknown):
        return index
    paths = [Path(str(index.paths[row])) for row in unknown]
    image_hw = index.image_hw.copy()
    image_hw[unknown] = header_sizes(paths)
    index.note(UNSIZED, str(paths[0]), len(unknown))
    return replace(index, image_hw=image_hw)


def header_sizes(paths: Sequence[Path]) -> NDArray[np.int32]:
    """(N, 2) height and width of images from their headers; 1 x 1 for one that cannot be opened.

    Such an image is left out or skipped later, and named there.
    """
    with ThreadPoolExecutor(max_workers=8) as pool:  # waiting for the disk, not for a core
        return np.array(list(pool.map(_size, paths, chunksize=64)), np.int32).reshape(-1, 2)


def _size(path: Path) -> tuple[int, int]:
    try:
        return image_size(path)
    except DataError:
        return 1, 1


def _without_what_is_no_box(index: Annotations) -> Annotations:
    """Drop and count boxes that are no four finite numbers or inside out; boxes become float32."""
    with np.errstate(over="ignore"):
        index = replace(index, boxes=index.boxes.astype(np.float32))
    endless = ~np.isfinite(index.boxes).all(axis=1)
    index = _drop(index, np.asarray(endless), "boxes that are not four finite numbers dropped")
    assert index.stated is not None
    negative = np.asarray((index.stated[:, 2:] < 0).any(axis=1))
    return _drop(index, negative, "boxes of negative size dropped")


def _training_rules(index: Annotations) -> Annotations:
    """Clip boxes to their image; drop what cannot be learned, and what is there twice."""
    image_hw = index.image_hw[index.image_index]
    assert index.stated is not None
    boxes = clipped_boxes(index)
    moved = (boxes != index.boxes).any(axis=1)
    if moved.any():
        what = "boxes clipped to the image"
        index.note(what, first_place(index, int(np.argmax(moved))), int(moved.sum()))
    sides = boxes[:, 2:] - boxes[:, :2]
    small = ~at_least_min_side(sides, image_hw) | (index.area <= 0)
    index = replace(
        index, boxes=boxes, stated=None, ids=None, lines=None, attributes={}, sources=None
    )
    index = _drop(
        index, small, f"boxes under {MIN_SIDE:g} px or without area dropped from training"
    )
    repeated = repeated_boxes(index, index.boxes)
    return _drop(index, repeated, "repeated boxes dropped from training")


def _drop(index: Annotations, drop: NDArray[np.bool_], what: str) -> Annotations:
    if not drop.any():
        return index
    index.note(what, first_place(index, int(np.argmax(drop))), int(drop.sum()))
    return index.keep_boxes(~drop)


def _share(count: int, fraction: float) -> NDArray[np.int64]:
    """Rows of a share of the images, always the same ones."""
    if not fraction > 0:
        raise DataError(
            f"fraction={fraction:g} must be above 0: up to 1 a share of the images, "
            "above 1 how many"
        )
    wanted = round(count * fraction) if fraction < 1 else int(fraction)
    wanted = min(max(wanted, 1), count)
    # Drawn, not every n-th: the pictures of a data set often come in an order that repeats.
    return np.sort(np.random.default_rng(0).permutation(count)[:wanted])

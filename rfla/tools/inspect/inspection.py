"""`rfla inspect`: every image opened, every box judged, splits compared, before anybody trains."""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rfla.cfg.verbs import InspectOptions
from rfla.data.annotations import REFUSED, REGIONS, UNOPENED, Annotations
from rfla.data.image_header import set_max_pixels
from rfla.data.index import load_index
from rfla.data.spec import DataSpec, load_data_spec
from rfla.errors import DataError
from rfla.tools.inspect.data_report import DataReport, Finding, Severity
from rfla.tools.inspect.looks import Look, alike, identical, look_at, parent_of

# Entries of `Annotations.counts` that make a data set unfit as it is; the others are repaired while
# training.
_UNFIT = (REFUSED, "images without a file left out")


def inspect(options: InspectOptions) -> DataReport:
    """Run the verb: inspect, draw, repair if asked, print the report.

    `report.exit_code` is 0 where training is safe.

    Raises:
        DataError: The data set cannot be found, or `fix` has no usable `out`.
    """
    set_max_pixels(options.max_pixels)
    spec = load_data_spec(options.data or "")
    if options.fix and not options.out:
        raise DataError("fix=true writes a repaired copy: say where with out=DIR")
    report = inspect_data(spec, options.split, options.workers, _new_folder(options), progress=True)
    if options.fix and options.out:
        from rfla.tools.inspect.repair import write_repaired

        report.repairs = write_repaired(spec, report, Path(options.out))
        report.repaired = Path(options.out)
    print(report.text())
    return report


def inspect_data(
    spec: DataSpec,
    split: str | None = None,
    workers: int = 4,
    pictures: Path | None = None,
    progress: bool = False,
) -> DataReport:
    """Check a data set.

    Args:
        spec: From `load_data_spec`.
        split: Check this one alone; None: all.
        workers: Threads that open images.
        pictures: Directory for `mosaic_{split}.jpg` and `labels_{split}.png`; None draws nothing.
        progress: Show a bar on a terminal.

    Raises:
        DataError: No split can be read at all, as when the data set is not on this machine.
    """
    report = DataReport(spec.name, spec.source, spec.names)
    refused: list[DataError] = []
    for name in [split] if split else spec.splits:
        if not split and _same_files_as_others(spec, name):
            continue
        try:
            index = load_index(spec, name, strict=False)
        except DataError as error:
            refused.append(error)
            severity: Severity = "error" if name in {"train", "val"} or split else "warning"
            report.add(
                name, Finding(severity, "split that cannot be read", 1, str(error).splitlines()[0])
            )
            continue
        report.names = report.names or index.names
        report.splits[name] = index
        report.looks[name] = look_at(index, workers, progress)
        _check_images(report, name, index, report.looks[name])
        _check_boxes(report, name, index)
        if pictures:
            from rfla.tools.inspect.pictures import draw_split

            report.pictures += draw_split(index, name, pictures)
    if not report.splits and refused:
        raise refused[0]
    _compare_splits(report)
    return report


def _same_files_as_others(spec: DataSpec, name: str) -> bool:
    """A split that only joins others (`trainval` beside train and val) shares its images by intention."""
    return name == "trainval" and {"train", "val"} <= set(spec.splits)


def _check_images(report: DataReport, split: str, index: Annotations, looks: list[Look]) -> None:
    for what, count in index.counts.items():
        if what == UNOPENED:  # below, with the reason
            continue
        severity: Severity = "error" if what in _UNFIT else "note" if what == REGIONS else "warning"
        report.add(split, Finding(severity, what, count, index.examples.get(what, "")))
    faults = [look.fault for look in looks if look.size is None]
    report.add(
        split,
        Finding("error", "images that cannot be used", len(faults), faults[0] if faults else ""),
    )
    wrong = [
        row
        for row, look in enumerate(looks)
        if look.size and look.size != tuple(index.image_hw[row])
    ]
    where = _size_note(index, looks, wrong[0]) if wrong else ""
    what = "images that were resized after they were annotated (their boxes are scaled)"
    report.add(split, Finding("warning", what, len(wrong), where))
    twins = identical(looks)
    where = _pair(index, index, twins[0]) if twins else ""
    report.add(split, Finding("warning", "images repeated within the split", len(twins), where))
    empty = int((np.diff(index.box_start) == 0).sum())
    report.add(split, Finding("note", "images without boxes (they train the background)", empty))


def _check_boxes(report: DataReport, split: str, index: Annotations) -> None:
    real = ~(index.ignore | index.crowd)
    if not real.any():
        report.add(
            split,
            Finding("error" if split == "train" else "warning", "split without a single box", 1),
        )
        return
    width, height = (index.boxes[:, 2:] - index.boxes[:, :2]).T
    limit = index.image_hw[index.image_index][:, ::-1].astype(np.float32)
    outside = ((index.boxes[:, 2:] <= 0) | (index.boxes[:, :2] >= limit)).any(axis=1)
    crossing = ((index.boxes[:, :2] < -0.01) | (index.boxes[:, 2:] > limit + 0.01)).any(
        axis=1
    ) & ~outside
    zero = np.minimum(width, height) <= 0
    tiny = (np.minimum(width, height) < 1) & ~zero
    key = np.column_stack([index.image_index, index.labels, index.boxes.view(np.int32)])
    _, first = np.unique(key, axis=0, return_index=True)
    repeated = np.ones(len(index.boxes), bool)
    repeated[first] = False
    for what, found in (
        (
            "boxes of zero width or height (dropped from training; in evaluation nobody can find them)",
            zero & real,
        ),
        ("boxes under 1 px wide or high (dropped from training)", tiny & real),
        ("boxes outside their image (dropped from training)", outside & real),
        ("boxes over the border of their image (clipped for training)", crossing & real),
        ("repeated boxes (merged for training)", repeated & real),
    ):
        where = _box_place(index, int(np.argmax(found))) if found.any() else ""
        report.add(split, Finding("warning", what, int(found.sum()), where))
    absent = [
        name for label, name in enumerate(index.names) if not (index.labels[real] == label).any()
    ]
    report.add(split, Finding("warning", "classes without a box", len(absent), ", ".join(absent)))


def _compare_splits(report: DataReport) -> None:
    looks = report.looks
    names = list(looks)
    for position, one in enumerate(names):
        for two in names[position + 1 :]:
            first, second = report.splits[one], report.splits[two]
            same = identical(looks[one], looks[two])
            where = _pair(first, second, same[0]) if same else ""
            report.add(
                "",
                Finding(
                    "error", f"images of {two} are in {one} too: scores would lie", len(same), where
                ),
            )
            near = alike(looks[one], looks[two])
            where = _pair(first, second, near[0]) if near else ""
            report.add(
                "",
                Finding(
                    "warning",
                    f"pairs of nearly identical images in {one} and {two}",
                    len(near),
                    where,
                ),
            )
            shared = sorted(_parents(first).keys() & _parents(second).keys())
            what = f"scenes, by the names of their tiles, are in both {one} and {two} (scores are a little optimistic)"
            report.add("", Finding("warning", what, len(shared), shared[0] if shared else ""))


def _parents(index: Annotations) -> Counter[str]:
    return Counter(parent for path in index.paths if (parent := parent_of(str(path))))


def _size_note(index: Annotations, looks: list[Look], row: int) -> str:
    height, width = looks[row].size or (0, 0)
    stated = "x".join(str(side) for side in index.image_hw[row][::-1])
    return f"{Path(str(index.paths[row])).name} is {width}x{height}, stated {stated}"


def _pair(first: Annotations, second: Annotations, rows: tuple[int, int]) -> str:
    return f"{Path(str(first.paths[rows[0]])).name} and {Path(str(second.paths[rows[1]])).name}"


def _box_place(index: Annotations, row: int) -> str:
    image = int(np.searchsorted(index.box_start, row, side="right")) - 1
    box: NDArray[Any] = index.boxes[row]
    return f"{Path(str(index.paths[image])).name} {[round(float(value), 2) for value in box]}"


def _new_folder(options: InspectOptions) -> Path:
    """`project/name`, `project/name2`, ...: the first that does not exist."""
    number = 1
    while (
        folder := Path(options.project) / (options.name + (str(number) if number > 1 else ""))
    ).exists():
        number += 1
    return folder

"""`rfla inspect`: every image opened, every box judged, splits compared, before a training."""

from collections import Counter
from dataclasses import replace
from itertools import combinations
from pathlib import Path

from rfla.cfg.preflight import check_project
from rfla.cfg.schema import Config
from rfla.cfg.setting_layers import flatten, validate
from rfla.cfg.verbs import InspectOptions
from rfla.data.annotations import Annotations
from rfla.data.common_range import find_common_range
from rfla.data.image_header import set_max_pixels
from rfla.data.index import load_index
from rfla.data.pixel_range import Range, range_of
from rfla.data.spec import DataSpec, load_data_spec
from rfla.errors import DataError, did_you_mean
from rfla.tools.inspect.data_report import DataReport, Finding, Severity
from rfla.tools.inspect.image_summary import (
    identical_pairs,
    scene_of_tile,
    similar_pairs,
    summarize_images,
)
from rfla.tools.inspect.repair import splits_left_empty, write_repaired
from rfla.tools.inspect.split_checks import check_boxes, check_images, pair_of_files
from rfla.tools.output import check_target


def inspect(options: InspectOptions) -> DataReport:
    """Inspect a data set, draw it, and repair a copy if asked.

    `report.exit_code` is 0 where training is safe.

    Raises:
        ConfigError: Nothing can be written into `project`.
        DataError: The data set cannot be found, or `fix` has no usable `out`.
    """
    set_max_pixels(options.max_pixels)
    check_project(options.project)
    spec = load_data_spec(options.data or "")
    if options.fix and not options.out:
        raise DataError("fix=true writes a repaired copy: say where with out=DIR")
    if options.fix and options.out:  # not after minutes of looking at images
        check_target(Path(options.out), [spec.root], exist_ok=None)
    report = inspect_data(
        spec,
        options.split,
        options.workers,
        _new_folder(options),
        imgsz=_input_size(options, spec),
        progress=True,
    )
    if options.fix and options.out:
        needed = [split for split in report.unreadable if split in ("train", "val")]
        lost = [*needed, *splits_left_empty(report)]
        if lost:
            what = f"no repaired copy was written: nothing would be left of {', '.join(lost)}"
            report.add("", Finding("error", what, 1))
        else:
            report.repairs = write_repaired(spec, report, Path(options.out))
            report.repaired = Path(options.out)
    return report


def inspect_data(
    spec: DataSpec,
    split: str | None = None,
    workers: int = 4,
    pictures: Path | None = None,
    imgsz: int = 800,
    progress: bool = False,
) -> DataReport:
    """Check a data set.

    Args:
        spec: From `load_data_spec`.
        split: Check this one alone; None: all.
        workers: Threads that open images.
        pictures: Directory for `mosaic_{split}.jpg` and `labels_{split}.png`; None draws nothing.
        imgsz: Long side of the network's input in training, px.
        progress: Show a bar on a terminal.

    Raises:
        DataError: No split can be read at all, as when the data set is not on this machine.
    """
    report = DataReport(spec.name, spec.source, spec.names)
    refused: list[DataError] = []
    limits = _stated_range(spec)
    # train first: the range of its values is that of all
    for name in [split] if split else sorted(spec.splits, key=lambda name: name != "train"):
        if not split and _only_joins_others(spec, name):
            continue
        try:
            index = load_index(spec, name, strict=False)
        except DataError as error:
            refused.append(error)
            report.unreadable.append(name)
            severity: Severity = "error" if name in {"train", "val"} or split else "warning"
            first_line = str(error).splitlines()[0]
            report.add(name, Finding(severity, "split that cannot be read", 1, first_line))
            continue
        report.names = report.names or index.names
        if limits is None and (found := find_common_range(index.paths)):
            limits = found.limits
            report.add(name, Finding("note", found.what(), found.images))
        report.splits[name] = index = replace(index, value_range=limits)
        report.images[name] = summarize_images(index, workers, progress)
        check_images(report, name, index, report.images[name])
        check_boxes(report, name, index, imgsz)
        if pictures:
            from rfla.tools.inspect.pictures import draw_split  # not before: matplotlib is slow

            report.pictures += draw_split(index, name, pictures)
    if not report.splits and refused:
        raise refused[0]
    if not split:
        _check_names_of_splits(report, spec)
    _compare_splits(report)
    return report


def _check_names_of_splits(report: DataReport, spec: DataSpec) -> None:
    """Report that training would not find the splits that it reads unless told otherwise."""
    severities: dict[str, Severity] = {"train": "error", "val": "warning"}
    for name, severity in severities.items():
        if name not in spec.splits:
            others = ", ".join(spec.splits)
            what = f"split that training reads is missing: {name}, beside {others}"
            report.add("", Finding(severity, what + did_you_mean(name, spec.splits), 1))


def _input_size(options: InspectOptions, spec: DataSpec) -> int:
    """Return the `imgsz` to judge sizes by: the one given, else what the data set recommends."""
    recommended = spec.settings.get("imgsz")
    given = "imgsz" in options.model_fields_set
    return recommended if isinstance(recommended, int) and not given else options.imgsz


def _stated_range(spec: DataSpec) -> Range | None:
    """Return the values of images of more than 8 bits that the data set's settings name."""
    stated = flatten(spec.settings, Config)
    wanted = stated.keys() & {"normalize.range", "normalize.range_16"}
    return range_of(validate(Config, {key: stated[key] for key in wanted}).normalize)


def _only_joins_others(spec: DataSpec, name: str) -> bool:
    """Tell whether a split shares its images by intention, as `trainval` beside train and val."""
    return name == "trainval" and {"train", "val"} <= set(spec.splits)


def _compare_splits(report: DataReport) -> None:
    """Report images and scenes that two splits share."""
    for one, two in combinations(report.splits, 2):
        first, second = report.splits[one], report.splits[two]
        same = identical_pairs(report.images[one], report.images[two])
        what = f"images of {two} are in {one} too: scores would be too high"
        where = pair_of_files(first, second, same[0]) if same else ""
        report.add("", Finding("error", what, len(same), where))
        near = similar_pairs(report.images[one], report.images[two])
        what = f"pairs of nearly identical images in {one} and {two}"
        where = pair_of_files(first, second, near[0]) if near else ""
        report.add("", Finding("warning", what, len(near), where))
        shared = sorted(_scenes(first).keys() & _scenes(second).keys())
        what = (
            f"scenes, by the names of their tiles, are in both {one} and {two} "
            "(scores are a little optimistic)"
        )
        report.add("", Finding("warning", what, len(shared), shared[0] if shared else ""))


def _scenes(index: Annotations) -> Counter[str]:
    """Return the scenes that the tiles of a split were cut from, with the number of tiles."""
    return Counter(scene for path in index.paths if (scene := scene_of_tile(str(path))))


def _new_folder(options: InspectOptions) -> Path:
    """Return `project/name`, `project/name2`, ...: the first that does not exist."""
    number = 1
    while True:
        name = options.name + (str(number) if number > 1 else "")
        folder = Path(options.project) / name
        if not folder.exists():
            return folder
        number += 1

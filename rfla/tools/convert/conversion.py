"""Convert an annotated data set of any known format into one that `rfla train data=...` takes.

For each split: read the records, find the images and their sizes, clean the boxes, cut tiles, place
the images, write. All is written into `OUT.partial` and renamed at the end, so that a kill leaves
nothing that looks done.
"""

import json
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from rfla.cfg.verbs import ConvertOptions
from rfla.data.annotations import Annotations
from rfla.data.common_range import CommonRange, find_common_range, spread
from rfla.data.formats import FORMATS, Format
from rfla.data.formats.images import ImageFinder
from rfla.data.formats.text import read_text
from rfla.data.image_header import set_max_pixels
from rfla.data.progress import tracked
from rfla.data.record import Classes, ImageRecord, Part
from rfla.data.scenes import REDUCED
from rfla.errors import ConfigError, DataError, did_you_mean
from rfla.files import home_expanded
from rfla.tools.convert.conversion_report import ConvertReport
from rfla.tools.convert.steps import UNUSABLE, Job, convert_records
from rfla.tools.output import MARK, check_target, partial_directory

TRAINABLE = ("coco", "yolo")  # what a data YAML can name
# The data YAML of the package whose protocol and sizes belong to a format.
PROTOCOL_OF = {
    "visdrone": "visdrone",
    "dota": "dota2",
    "tinyperson": "tinyperson",
    "soda": "sodad",
    "xview": "xview",
}


def convert(options: ConvertOptions, progress: bool = False) -> ConvertReport:
    """Convert a data set into `options.out`.

    Written are `images/{split}`, the annotations, `data.yaml` (of `to=coco` and `to=yolo`, which
    rfla trains on) and the counts in `convert.json`.

    Args:
        options: Format, source, target, tiles; `aitod-xview` is another program.
        progress: Show a progress bar on a terminal.

    Raises:
        DataError: With file and line, for what cannot be read; images that cannot be told apart;
            nothing to convert.
        ConfigError: Options that do not go together.
    """
    reader = _check(options)
    set_max_pixels(options.max_pixels)
    target, source = Path(options.out or "").absolute(), Path(options.source or "")
    annotations = Path(options.annotations) if options.annotations else None
    sources = [source, *([annotations] if annotations else [])]
    check_target(target, sources, options.exist_ok)  # before anything is read
    parts = find_parts(reader, source, annotations, options.split)
    names = class_names(options)
    classes = Classes(names) if names else reader.classes(list(parts.values()))
    report = ConvertReport(target, options.to, classes.names)
    with partial_directory(target, sources, options.exist_ok) as beside:
        readings = {split: reader.read(part, classes) for split, part in parts.items()}
        common = None if options.range else _common_range(readings, parts)
        job = Job.of(options, common.limits if common else options.range, beside, report)
        for split, part in parts.items():
            read = readings.pop(split)
            report.add_reading(read)
            records = tracked(read.records(), split, len(read), progress)
            converted = convert_records(job, records, part.folders, split)
            _write_split(job, split, converted, classes)
        if common and (options.tile or report.repaired[f"images {REDUCED}"]):
            report.range_16 = common.line("range")
        _refuse_nothing(report, source, parts)
        if options.to in TRAINABLE:
            content = _data_yaml(str(options.format), options.to, list(report.images), classes)
            (beside / "data.yaml").write_text(content, encoding="utf-8")
        counts = {"format": options.format} | report.as_dict()
        text = json.dumps(counts, indent=1, ensure_ascii=False)
        (beside / MARK).write_text(text, encoding="utf-8")
    return report


def _common_range(readings: dict[str, Annotations], parts: dict[str, Part]) -> CommonRange | None:
    """Look for one range of values for the 16-bit images of all splits."""
    found: list[str] = []
    for split, read in readings.items():
        finder = ImageFinder(parts[split].folders)
        rows = spread(len(read))
        others = [""] * len(rows) if read.other_names is None else read.other_names[rows].tolist()
        with suppress(DataError):  # a name that several files have is refused where it is placed
            paths, _ = finder.paths(read.paths[rows].tolist(), others)
            found += [path for path in paths if path is not None]
    return find_common_range(found)


def class_names(options: ConvertOptions) -> list[str]:
    """Return the class names given by `names=`: as they are, or the lines of the file it names."""
    if len(options.names) == 1 and home_expanded(options.names[0]).is_file():
        lines = read_text(home_expanded(options.names[0])).splitlines()
        return [line.strip() for line in lines if line.strip()]
    return list(options.names)


def _check(options: ConvertOptions) -> Format:
    """Return the reader of the source's format.

    Raises:
        ConfigError: Unknown formats, and options that do not go together.
    """
    for key, name in (("format", options.format or ""), ("to", options.to)):
        if name not in FORMATS:
            hint = did_you_mean(name, FORMATS)
            raise ConfigError(f"{key}={name}: must be one of {', '.join(FORMATS)}{hint}")
    reader = FORMATS[str(options.format)]
    names = class_names(options)
    if names and not reader.needs_names:
        raise ConfigError(
            f"names=: format {options.format} states its classes itself; leave names= out"
        )
    if len(set(names)) < len(names):
        raise ConfigError(f"names={','.join(names)}: a name is given twice")
    tile, overlap = options.tile, options.overlap
    if tile and tile < 16:
        raise ConfigError(f"tile={tile}: must be 0 (whole images) or 16 to 65536 px")
    if overlap is not None and overlap >= max(tile, 1):
        raise ConfigError(f"overlap={overlap}: must be at least 0 and less than tile={tile} px")
    return reader


def _refuse_nothing(report: ConvertReport, source: Path, parts: dict[str, Part]) -> None:
    """Refuse a conversion in which no image was written.

    Raises:
        DataError: With what was wrong with the first image, or where images were looked for.
    """
    if report.images:
        return
    unusable = report.examples.get(UNUSABLE)
    if unusable:
        raise DataError(
            f"source={source}: none of the annotated images could be used; the first: {unusable}"
        )
    if not report.dropped["images that are not there"]:
        left_out = ", ".join(f"{count:,} {what}" for what, count in report.dropped.items())
        why = f"nothing is left: {left_out}" if left_out else "its annotations list no image"
        raise DataError(f"source={source}: {why}")
    looked = ", ".join(str(folder) for part in parts.values() for folder in part.images)
    raise DataError(f"source={source}: none of the annotated images was found; looked in {looked}")


def find_parts(
    reader: Format, source: Path, annotations: Path | None, split: str | None
) -> dict[str, Part]:
    """Find the splits to convert.

    Raises:
        DataError: Nothing is found, or not that split.
    """
    for key, path in (("source", source), ("annotations", annotations)):
        if path is not None and not path.exists():
            raise DataError(f"{key}={path}: no such file or directory")
    parts = reader.find(source if annotations is None else annotations)
    if annotations is not None:
        parts = {name: replace(part, images=(source,)) for name, part in parts.items()}
    if split is None:
        return parts
    if split in parts:
        return {split: parts[split]}
    if len(parts) == 1 and "/" not in split:
        return {split: next(iter(parts.values()))}
    raise DataError(
        f"source={source}: no split '{split}'; found {', '.join(parts)}{did_you_mean(split, parts)}"
    )


def _write_split(job: Job, split: str, records: Iterator[ImageRecord], classes: Classes) -> None:
    writer = FORMATS[job.to]
    lost = writer.write(job.folder / writer.target.format(split=split), records, classes)
    for reason, count in lost.items():
        job.report.drop(reason, f"split {split}", count)


def _data_yaml(format: str, to: str, splits: Sequence[str], classes: Classes) -> str:
    """Return a data YAML for what was written: splits, names, and the protocol of the format."""
    content: dict[str, Any] = {"format": to}
    for split in splits:
        images = f"images/{split}"
        coco = {"images": images, "annotations": f"annotations/{split}.json"}
        content[split] = images if to == "yolo" else coco
    content["names"] = classes.names
    if format in PROTOCOL_OF:
        built_in = resources.files("rfla.cfg") / "datasets" / f"{PROTOCOL_OF[format]}.yaml"
        known = yaml.safe_load(built_in.read_text("utf-8"))
        content |= {key: known[key] for key in ("protocol", "sizes", "licence") if key in known}
    head = (
        f"# Written by `rfla convert format={format}`; paths are relative to this file. "
        f"Counts: {MARK}.\n"
    )
    return head + yaml.safe_dump(content, sort_keys=False, allow_unicode=True)

"""Convert an annotated data set of any known format into one that `rfla train data=...` takes at once.

The chain of one split: read records -> find images and sizes -> clean boxes -> cut tiles -> place
images -> write. All is written into `OUT.partial` and renamed at the end, so that a kill leaves
nothing that looks done.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from rfla.data.formats import FORMATS, Format
from rfla.data.formats.record import Classes, ImageRecord, Part
from rfla.data.progress import tracked
from rfla.errors import ConfigError, DataError, did_you_mean
from rfla.tools.convert.report import ConvertReport
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


def convert(
    format: str,
    source: str | Path,
    out: str | Path,
    to: str = "coco",
    *,
    split: str | None = None,
    names: Sequence[str] | None = None,
    annotations: str | Path | None = None,
    tile: int = 0,
    overlap: int | None = None,
    keep_visible: float = 0.5,
    empty_tiles: float = 1.0,
    workers: int = 4,
    exist_ok: bool = False,
    progress: bool = False,
) -> ConvertReport:
    """Convert a data set.

    Args:
        format: One of `FORMATS`.
        source: Its directory (or annotation file, where the format has one for all images).
        out: Directory to write: `images/{split}`, annotations, `data.yaml`, and the counts in
            `convert.json`.
        to: `coco` or `yolo`, which rfla trains on; any other of `FORMATS` for other tools.
        split: Convert this split alone; where the source has one unnamed split, its name.
        names: Class names in label order, for formats whose files may not state them.
        annotations: The annotation file or directory where it is not in `source`; images are looked
            for in `source`.
        tile: Side of the tiles in px; 0 keeps whole images. The last tile of a row is shifted
            inwards.
        overlap: Of neighbouring tiles, px; a quarter of `tile` by default.
        keep_visible: Share of a box from which its visible part stays an object in a tile; below it
            it is ignored.
        empty_tiles: Share of the tiles without objects that is kept.
        workers: Threads that write tiles.
        exist_ok: Replace `out` if an earlier conversion wrote it.
        progress: Show a progress bar on a terminal.

    Raises:
        DataError: With file and line, for what cannot be read; images that cannot be told apart;
            nothing to convert.
        ConfigError: An argument that makes no sense.
    """
    kind = _check(format, to, names, tile, overlap, keep_visible, empty_tiles)
    target = Path(out).expanduser().absolute()
    source = Path(source).expanduser()
    check_target(target, [source, *([Path(annotations)] if annotations else [])], exist_ok)
    parts = find_parts(kind, source, Path(annotations).expanduser() if annotations else None, split)
    classes = Classes(list(names)) if names else kind.classes(list(parts.values()))
    report = ConvertReport(target, to, classes.names)
    gap = tile // 4 if overlap is None else overlap
    with partial_directory(target) as beside:
        job = Job(to, tile, gap, keep_visible, empty_tiles, max(workers, 1), beside, report)
        for name, part in parts.items():
            total = (
                len(part.annotations) if len(part.annotations) > 1 else None
            )  # a file for each image
            records = tracked(kind.read(part, classes), name, total, progress)
            _write(job, name, convert_records(job, records, part.images, name), classes)
        if not report.images:
            unusable = report.examples.get(UNUSABLE)
            if unusable:
                raise DataError(
                    f"source={source}: none of the annotated images could be used; the first: {unusable}"
                )
            looked = ", ".join(str(folder) for part in parts.values() for folder in part.images)
            raise DataError(
                f"source={source}: none of the annotated images was found; looked in {looked}"
            )
        if to in TRAINABLE:
            _write_yaml(beside / "data.yaml", format, to, list(report.images), classes)
        counts = json.dumps({"format": format} | report.as_dict(), indent=1, ensure_ascii=False)
        (beside / MARK).write_text(counts, encoding="utf-8")
    return report


def _check(
    format: str,
    to: str,
    names: Sequence[str] | None,
    tile: int,
    overlap: int | None,
    keep_visible: float,
    empty_tiles: float,
) -> Format:
    if format not in FORMATS:
        known = ", ".join([*FORMATS, "aitod-xview"])
        raise ConfigError(f"format={format}: formats are {known}{did_you_mean(format, FORMATS)}")
    if to not in FORMATS:
        raise ConfigError(
            f"to={to}: must be one of {', '.join(FORMATS)}{did_you_mean(to, FORMATS)}"
        )
    if names and not FORMATS[format].needs_names:
        raise ConfigError(f"names=: format {format} states its classes itself; leave names= out")
    if names and len(set(names)) < len(names):
        raise ConfigError(f"names={','.join(names)}: a name is given twice")
    if tile and not 16 <= tile <= 65536:
        raise ConfigError(f"tile={tile}: must be 0 (whole images) or 16 to 65536 px")
    if overlap is not None and not 0 <= overlap < max(tile, 1):
        raise ConfigError(f"overlap={overlap}: must be at least 0 and less than tile={tile} px")
    for key, value in (("keep_visible", keep_visible), ("empty_tiles", empty_tiles)):
        if not 0 <= value <= 1:
            raise ConfigError(f"{key}={value}: must be between 0 and 1")
    return FORMATS[format]


def find_parts(
    kind: Format, source: Path, annotations: Path | None, split: str | None
) -> dict[str, Part]:
    """Find the splits to convert.

    Raises:
        DataError: Nothing is found, or not that split.
    """
    for key, path in (("source", source), ("annotations", annotations)):
        if path is not None and not path.exists():
            raise DataError(f"{key}={path}: no such file or directory")
    parts = kind.find(source if annotations is None else annotations)
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


def _write(job: Job, split: str, records: Iterator[ImageRecord], classes: Classes) -> None:
    kind = FORMATS[job.to]
    lost = kind.write(job.folder / kind.target.format(split=split), records, classes)
    for reason, count in lost.items():
        job.report.drop(reason, f"split {split}", count)


def _write_yaml(path: Path, format: str, to: str, splits: Sequence[str], classes: Classes) -> None:
    content: dict[str, Any] = {"format": to}
    for split in splits:
        images = f"images/{split}"
        content[split] = (
            images
            if to == "yolo"
            else {"images": images, "annotations": f"annotations/{split}.json"}
        )
    content["names"] = classes.names
    if format in PROTOCOL_OF:
        text = (
            resources.files("rfla.cfg")
            .joinpath("datasets", f"{PROTOCOL_OF[format]}.yaml")
            .read_text("utf-8")
        )
        content |= {
            key: value
            for key, value in yaml.safe_load(text).items()
            if key in ("protocol", "sizes", "licence")
        }
    head = f"# Written by `rfla convert format={format}`; paths are relative to this file. Counts: {MARK}.\n"
    path.write_text(
        head + yaml.safe_dump(content, sort_keys=False, allow_unicode=True), encoding="utf-8"
    )

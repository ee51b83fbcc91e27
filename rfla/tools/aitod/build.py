"""Build the complete images of AI-TOD and AI-TOD-v2 from xView's scenes and the published rest.

Nothing but the image names of the annotation files is needed: `N__x_y.png` is the 800 x 800 px
window of scene `N.tif` at x, y, zero padded past the border; every other name is an image of the
published part without xView. So the quirks of the authors' cutting (a last tile that almost repeats
its neighbour, scenes smaller than a tile) come out by themselves. (jwwangchn/AI-TOD, aitodtoolkit;
nothing of it is used.)

Channel order: the authors' tool reads scenes as RGB and writes them with a function that expects
BGR, so that red and blue are exchanged in their files, and in what everybody trained on.
`channel_order="official"` repeats that, for published numbers and official weights; `"rgb"` writes
true colours. The part without xView is taken as it is.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rfla.data.formats.images import index_stems
from rfla.data.images import Image, read_image, write_image
from rfla.data.progress import tracked
from rfla.data.scenes import TIFF, Scene, open_scene
from rfla.errors import ConfigError, DataError
from rfla.files import home_expanded, write_atomically
from rfla.json_file import read_json
from rfla.tools.aitod.build_report import AitodReport
from rfla.tools.aitod.names import (
    FROM_XVIEW,
    SIDE,
    Wanted,
    find_annotations,
    images_of,
    shared_scenes,
    wanted_images,
)
from rfla.tools.output import place_image

ORDERS = ("official", "rgb")
STATE = "build.json"
CHECKSUMS = "checksums.sha256"


def build_aitod(
    annotations: str | Path,
    xview: str | Path | None = None,
    wo_xview: str | Path | None = None,
    out: str | Path = "aitod",
    channel_order: str = "official",
    workers: int = 4,
    progress: bool = False,
) -> AitodReport:
    """Build the images, verify them, and write `data.yaml` when all are there.

    A stopped build goes on where it was: a file is there under its name only when it is whole.

    Args:
        annotations: Directory (or one file) of `aitod_*.json` and `aitodv2_*.json`.
        xview: Directory of the xView scenes, `N.tif`.
        wo_xview: Directory of the published images that are not from xView.
        out: Directory to write: `images/trainval`, `images/test`, `annotations/aitod_{split}.json`,
            `checksums.sha256`.
        channel_order: `official` or `rgb`; see the head of this file.
        workers: Threads; each holds one scene, or one window of it where rasterio is installed.
        progress: Show a progress bar on a terminal.

    Returns:
        What was built and what is missing; `complete` says whether `out` can be trained on.

    Raises:
        DataError: No annotation files, two for one split, an `out` that is something else.
        ConfigError: An unknown channel order.
    """
    if channel_order not in ORDERS:
        raise ConfigError(f"channel_order={channel_order}: must be {' or '.join(ORDERS)}")
    target = home_expanded(out).absolute()
    files = find_annotations(home_expanded(annotations))
    scenes, others = _index("xview", xview), _index("wo_xview", wo_xview)
    images = images_of(files)
    wanted = wanted_images(images)
    _open_target(target, channel_order)
    report = AitodReport(target, channel_order, len(wanted))
    report.count_splits(
        files, {key: len(names) for key, names in images.items()}, shared_scenes(wanted)
    )
    tasks = _group(wanted, scenes, others, report)
    _run(tasks, target, channel_order, workers, report, progress)
    _finish(target, files, report, channel_order)
    return report


def _index(key: str, folder: str | Path | None) -> dict[str, list[Path]]:
    if folder is None:
        return {}
    path = home_expanded(folder)
    if not path.is_dir():
        raise DataError(f"{key}={path}: no such directory")
    return index_stems([path])


def _open_target(out: Path, channel_order: str) -> None:
    """Make `out`, or go on with a build of the same channel order in it.

    Raises:
        DataError: It holds something else.
    """
    state = out / STATE
    if state.is_file():
        before = read_json(state).get("channel_order")
        if before != channel_order:
            raise DataError(
                f"out={out}: was started with channel_order={before}; give that order or another "
                "directory"
            )
    elif out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise DataError(f"out={out}: is not empty and holds no build of AI-TOD")
    for folder in ("trainval", "test"):
        (out / "images" / folder).mkdir(parents=True, exist_ok=True)
        for left in (out / "images" / folder).glob("*.tmp"):  # of a killed run
            left.unlink()
    (out / "data.yaml").unlink(missing_ok=True)
    _write_state(out, channel_order, "building")


def _write_state(out: Path, channel_order: str, state: str) -> None:
    content = {"data": "AI-TOD", "channel_order": channel_order, "state": state}
    write_atomically(out / STATE, json.dumps(content) + "\n")


def _group(
    wanted: Iterable[Wanted],
    scenes: Mapping[str, list[Path]],
    others: Mapping[str, list[Path]],
    report: AitodReport,
) -> list[tuple[Path, list[Wanted]]]:
    """Return pairs of a source file and the images made of it.

    What has no source is noted as missing.
    """
    groups: dict[Path, list[Wanted]] = {}
    for image in wanted:
        match = FROM_XVIEW.fullmatch(image.name)
        candidates = scenes.get(match[1], []) if match else []
        sources = [path for path in candidates if path.suffix.lower() in TIFF]
        if not sources:
            sources = _published(image, others)
        if not sources and (report.out / image.relative).is_file():
            sources = [report.out / image.relative]  # of an earlier run; its source has moved since
        if sources:
            groups.setdefault(sources[0], []).append(image)
        else:
            report.miss(image.name, match[1] if match else None)
    return sorted(groups.items())


def _published(image: Wanted, others: Mapping[str, list[Path]]) -> list[Path]:
    """Return the published files of an image, those of its own split first."""
    named = [path for path in others.get(Path(image.name).stem, []) if path.name == image.name]
    return sorted(named, key=lambda path: image.folder not in path.parts)


def _run(
    tasks: list[tuple[Path, list[Wanted]]],
    out: Path,
    channel_order: str,
    workers: int,
    report: AitodReport,
    progress: bool,
) -> None:
    """Make and verify the images of all sources, and note what came out."""
    total, before = sum(len(images) for _, images in tasks), _checksums(out)
    with ThreadPoolExecutor(max(workers, 1)) as pool:
        futures = [
            pool.submit(_build, source, images, out, channel_order, before)
            for source, images in tasks
        ]
        results = (result for future in as_completed(futures) for result in future.result())
        try:
            for result in tracked(results, "AI-TOD", total, progress):
                if result.problem:
                    report.problems.append(f"{result.image.name}: {result.problem}")
                else:
                    report.checksums[result.image.relative] = result.checksum
                    report.made += result.made
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


@dataclass(frozen=True)
class _Result:
    """One image: the checksum of its file, whether it was made now, what is wrong with it."""

    image: Wanted
    checksum: str = ""
    made: bool = False
    problem: str = ""


def _build(
    source: Path,
    images: list[Wanted],
    out: Path,
    channel_order: str,
    before: Mapping[str, str],
) -> list[_Result]:
    """Make the images of one source file that are not there yet, and verify all of them."""
    todo = {image for image in images if not (out / image.relative).is_file()}
    problem = ""
    try:
        _make(source, [image for image in images if image in todo], out, channel_order)
    except (DataError, OSError) as error:
        problem = str(error)
    results = []
    for image in images:
        if problem and not (out / image.relative).is_file():
            results.append(_Result(image, problem=problem))
        else:
            made = image in todo
            known = None if made else before.get(image.relative)
            results.append(_verify(out / image.relative, image, made, known))
    return results


def _make(source: Path, images: list[Wanted], out: Path, channel_order: str) -> None:
    """Cut images out of a scene of xView, or put the published file in place."""
    from_scene = source.suffix.lower() in TIFF
    if not images or not (from_scene and FROM_XVIEW.fullmatch(images[0].name)):
        for image in images:
            place_image(source, out / image.relative)
        return
    with open_scene(source) as scene:
        for image in images:
            pixels = cut_tile(scene, *_corner(image.name))
            if channel_order == "official":
                pixels = swap_red_and_blue(pixels)
            write_image(out / image.relative, pixels)


def _verify(path: Path, image: Wanted, made: bool, known: str | None) -> _Result:
    """Check a finished file and take its checksum.

    A damaged one is removed, so that the next run makes it again.

    Args:
        path: The file.
        image: What it should be.
        made: Whether this run has made it.
        known: The checksum that an earlier run took of it, if one did.
    """
    try:
        height, width = read_image(path).shape[:2]
        checksum = hashlib.sha256(path.read_bytes()).hexdigest()
        if known not in (None, checksum):
            raise DataError(f"{path}: has changed since it was made ({CHECKSUMS})")
    except DataError as error:
        path.unlink(missing_ok=True)
        return _Result(image, made=made, problem=str(error))
    if (width, height) != (image.width, image.height):
        problem = f"{width} x {height} px, annotated as {image.width} x {image.height}"
        return _Result(image, made=made, problem=problem)
    return _Result(image, checksum, made)


def _checksums(out: Path) -> dict[str, str]:
    """Return the checksums that an earlier run took, by the names of the images."""
    if not (out / CHECKSUMS).is_file():
        return {}
    lines = (out / CHECKSUMS).read_text(encoding="utf-8", errors="replace").splitlines()
    return {name: checksum for checksum, _, name in (line.partition("  ") for line in lines)}


def _corner(name: str) -> tuple[int, int]:
    match = FROM_XVIEW.fullmatch(name)
    assert match is not None
    return int(match[2]), int(match[3])


def cut_tile(scene: Scene, x: int, y: int) -> Image:
    """Return the (800, 800, 3) uint8 RGB window of a scene at x, y px; black past the border.

    Raises:
        DataError: The window lies outside the scene.
    """
    right, below = min(x + SIDE, scene.width), min(y + SIDE, scene.height)
    if x >= right or y >= below:
        raise DataError(
            f"window at {x}, {y} lies outside its scene of {scene.width} x {scene.height} px"
        )
    tile = np.zeros((SIDE, SIDE, 3), np.uint8)
    tile[: below - y, : right - x] = scene.read((x, y, right, below))
    return tile


def swap_red_and_blue(image: Image) -> Image:
    """Return an (H, W, 3) image with the first and last channel exchanged."""
    return np.ascontiguousarray(image[:, :, ::-1])


def _finish(out: Path, files: Mapping[str, Path], report: AitodReport, channel_order: str) -> None:
    """Copy the annotations, list checksums and, where nothing is missing, write `data.yaml`."""
    (out / "annotations").mkdir(exist_ok=True)
    for key, path in files.items():
        write_atomically(out / "annotations" / f"{key}.json", path.read_bytes())
    sums = "".join(f"{sha}  {name}\n" for name, sha in sorted(report.checksums.items()))
    write_atomically(out / CHECKSUMS, sums)
    missing = out / "missing.txt"
    if not report.complete:
        write_atomically(missing, "".join(f"{line}\n" for line in report.missing_lines()))
        return
    missing.unlink(missing_ok=True)
    names = ["data.yaml", "data_v2.yaml"]
    for version in ("aitod", "aitodv2"):
        splits = [key.removeprefix(f"{version}_") for key in files if key.startswith(f"{version}_")]
        if splits:
            write_atomically(out / names.pop(0), _yaml(version, splits, channel_order))
    _write_state(out, channel_order, "complete")


def _yaml(version: str, splits: Iterable[str], channel_order: str) -> str:
    """Return a data YAML for the splits that there are; the rest is that of the package."""
    import yaml

    from rfla.data.spec import load_data_spec

    known = yaml.safe_load(load_data_spec(version).source.read_text(encoding="utf-8"))
    content: dict[str, Any] = {"format": "coco"}
    content |= {split: known[split] for split in sorted(splits, key=list(known).index)}
    content |= {key: known[key] for key in ("names", "protocol", "sizes", "settings", "licence")}
    head = (
        f"# Written by `rfla convert format=aitod-xview`, channel_order={channel_order}. "
        f"Checksums: {CHECKSUMS}.\n"
    )
    return head + yaml.safe_dump(content, sort_keys=False, allow_unicode=True)

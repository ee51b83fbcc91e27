"""`rfla compare`: from run directories or detection files to `rfla.metrics.compare`."""

import json
import shlex
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path

from rfla.cfg import Config, load_config, load_saved
from rfla.cfg.verbs import CompareOptions, check_out
from rfla.data import load_data_spec, load_index
from rfla.data.progress import tracked
from rfla.engine.console import make_console, remark
from rfla.engine.inference import protocol_of
from rfla.errors import ConfigError
from rfla.files import write_result
from rfla.metrics.arrays import GroundTruth
from rfla.metrics.coco_io import ground_truth
from rfla.metrics.compare import Comparison, compare
from rfla.metrics.detection_files import read_detections
from rfla.metrics.protocols import Protocol


def run_compare(options: CompareOptions) -> None:
    """Run `rfla compare`: print the table, and write it where asked.

    Raises:
        RflaError: As `compare_files`.
    """
    if options.out:
        check_out(options.out, options.overwrite, ".json")
    result = compare_files(
        options.a or "",
        options.b or "",
        data=options.data,
        split=options.split,
        draws=options.draws,
        seed=options.seed,
    )
    make_console().print(result.table())
    if options.out:
        write_result(options.out, json.dumps(result.as_dict(), indent=1))


def compare_files(
    a: str,
    b: str,
    *,
    data: str | None = None,
    split: str | None = None,
    draws: int = 200,
    seed: int = 0,
) -> Comparison:
    """Compare two sets of detections on the same images.

    Args:
        a: A directory of `rfla val`, or a COCO detections file.
        b: The other one.
        data: Data set that both are judged on; left out, the one that a run directory names.
        split: Split of it; left out, the one of the run, else val.
        draws: Bootstrap draws.
        seed: Of the draws.

    Raises:
        RflaError: Files that are not there or do not fit, or no data set.
    """
    runs = [run for run in (_run_settings(a), _run_settings(b)) if run is not None]
    truths, protocol = _judged_by(runs, data, split)
    say = partial(remark, make_console())
    found = [read_detections(_detections_file(place), truths, say) for place in (a, b)]

    def watch(numbers: Iterable[int]) -> Iterator[int]:
        return tracked(numbers, "bootstrap", draws, show=True, unit="draws")

    return compare(
        truths,
        found[0],
        found[1],
        protocol,
        names=(a, b),
        draws=draws,
        seed=seed,
        watch=watch,
        say=say,
    )


def _judged_by(
    runs: Sequence[Config], data: str | None, split: str | None
) -> tuple[GroundTruth, Protocol]:
    """Return the true boxes and the rules that both sides are judged by.

    Args:
        runs: The settings of the sides that are run directories.
        data: As in `compare_files`.
        split: As in `compare_files`.

    Raises:
        RflaError: The runs were judged differently, or nothing says on what.
    """
    given = {"data": data, "split": split, "fraction": None, "single_cls": None, "protocol": None}
    for key, value in given.items():
        values = [getattr(run, key) for run in runs]
        if key == "protocol" and len(set(values)) > 1:  # None is what the data set names
            values = [protocol_of(run, load_data_spec(data or str(run.data))).name for run in runs]
        if value is None and len(set(values)) > 1:
            mend = f"; choose one with {key}=" if key in ("data", "split") else ""
            raise ConfigError(
                f"a and b were evaluated with different {key} ({values[0]}, {values[1]}){mend}"
            )
    data = data or (runs[0].data if runs else None)
    if data is None:
        raise ConfigError(
            "data is missing: detection files do not say what they were made on; give data=my.yaml"
        )

    spec = load_data_spec(data)
    settings = runs[0] if runs else load_config({})
    index = load_index(
        spec,
        split or settings.split,
        fraction=settings.fraction,
        single_cls=settings.single_cls,
        need_images=False,
    )
    return ground_truth(index), protocol_of(settings, spec)


def _run_settings(place: str) -> Config | None:
    """Settings of a run directory; None for a file."""
    args = Path(place) / "args.yaml"
    return load_saved(args) if args.is_file() else None


def _detections_file(place: str) -> Path:
    path = Path(place)
    if not path.is_dir():
        return path
    for candidate in (path / "predictions.json", path / "predictions.json.gz"):
        if candidate.is_file():
            return candidate
    weights = path / "weights" / "best.safetensors"
    model = f"{shlex.quote(f'model={weights}')} " if weights.is_file() else ""
    raise ConfigError(f"{place}: no predictions.json there; make one by: rfla val {model}data=...")

"""Studies of `ablation.py`: which trainings a YAML asks for, and the records that they leave.

A study names what all its runs share, what each data set needs and what each variant changes:

    settings: {recipe: scratch, backbone: resnet18}       # keys of `rfla train`
    data:
      nuclei3: {imgsz: 128, epochs: 12}
      vehicles3: {tiles: 256, imgsz: 256, epochs: 20}     # trained on tiles, judged by slices
    variants:
      rfd: {model: rfd}
      fcos_p2: {model: fcos_p2}
    seeds: [0, 1, 2]
    reference: fcos_p2                                    # differences are against this variant
    equal_time: [rfd]          # these run once more, for as long as the reference takes
    peers: [torchvision_fcos]  # only tabulated: what `peers.py` has run
    split: test                # judged; val for a study that something is chosen by
"""

import json
import re
import statistics
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import yaml

from rfla.files import write_atomically

SAME_LENGTH = 0.05  # equal time: a share of epochs under which the run of equal epochs stands


@dataclass(frozen=True)
class Job:
    """One training: where it goes below the output directory, its data and its settings."""

    data: str
    variant: str
    seed: int
    settings: dict[str, Any]
    split: str = "test"
    tiles: int = 0

    @property
    def place(self) -> str:
        """Directory of the run below the output directory."""
        return f"{self.data}/{re.sub(r'[^a-zA-Z0-9_.+-]+', '_', self.variant)}/{self.seed}"


@dataclass(frozen=True)
class Study:
    """A YAML file as it was read."""

    name: str
    settings: dict[str, Any]
    data: dict[str, dict[str, Any]]
    variants: dict[str, dict[str, Any]]
    seeds: list[int]
    reference: str
    equal_time: list[str]
    peers: list[str]
    split: str

    @classmethod
    def read(cls, path: Path) -> "Study":
        """Read a study.

        Raises:
            SystemExit: A key that no study has, or a variant that it does not name.
        """
        content = yaml.safe_load(path.read_text())
        known = {field.name for field in fields(cls)} - {"name"}
        if unknown := set(content) - known:
            sys.exit(f"{path}: unknown {sorted(unknown)}; a study has {sorted(known)}")
        variants = content["variants"]
        reference = content.get("reference", next(iter(variants)))
        equal_time = content.get("equal_time", [])
        if missing := {reference, *equal_time} - set(variants):
            sys.exit(f"{path}: no variant {sorted(missing)}; there are {sorted(variants)}")
        data = {name: entry or {} for name, entry in content["data"].items()}
        settings, seeds = content.get("settings", {}), content.get("seeds", [0, 1, 2])
        peers = content.get("peers", [])
        split = content.get("split", "test")
        return cls(path.stem, settings, data, variants, seeds, reference, equal_time, peers, split)

    def job(self, data: str, variant: str, seed: int) -> Job:
        """One run of equal epochs."""
        entry = dict(self.data[data])
        tiles = entry.pop("tiles", 0)
        settings = {**self.settings, **entry, **self.variants[variant]}
        return Job(data, variant, seed, settings, self.split, tiles)

    def jobs(self) -> Iterator[Job]:
        """Every run of equal epochs, all variants of a seed before the next seed."""
        for seed in self.seeds:
            for data in self.data:
                for variant in self.variants:
                    yield self.job(data, variant, seed)

    def timed_jobs(self, out: Path) -> Iterator[Job]:
        """Runs for as long as the reference takes; needs the records of equal epochs."""
        for seed in self.seeds:
            for data in self.data:
                times = {
                    name: seconds_an_epoch(map(time_and_epochs, records_of(out, self, data, name)))
                    for name in (self.reference, *self.equal_time)
                }
                for variant in self.equal_time:
                    ours, theirs = times[variant], times[self.reference]
                    if ours is None or theirs is None or variant == self.reference:
                        continue
                    job = self.job(data, variant, seed)
                    epochs = job.settings["epochs"]
                    fitting = max(1, round(epochs * theirs / ours))
                    if abs(fitting - epochs) > SAME_LENGTH * epochs:
                        longer = {**job.settings, "epochs": fitting}
                        yield Job(
                            data, f"{variant}, equal time", seed, longer, job.split, job.tiles
                        )


def records_of(out: Path, study: Study, data: str, variant: str) -> list[dict[str, Any]]:
    """Records of a variant on a data set, one for each seed that is done."""
    files = [out / Job(data, variant, seed, {}).place / "record.json" for seed in study.seeds]
    return [json.loads(file.read_text()) for file in files if file.exists()]


def time_and_epochs(record: dict[str, Any]) -> tuple[float | None, int]:
    """Seconds of a run and its epochs; None for one that was stopped in the middle."""
    seconds = None if record["resumed"] else record["seconds"]
    return seconds, record["settings"]["epochs"]


def seconds_an_epoch(runs: Iterable[tuple[float | None, int]]) -> float | None:
    """Median over the runs that have a time."""
    times = [seconds / epochs for seconds, epochs in runs if seconds]
    return statistics.median(times) if times else None


def write_record(place: Path, record: dict[str, Any]) -> None:
    """Write the record of a run, whole or not at all."""
    write_atomically(place / "record.json", json.dumps(record, indent=1))

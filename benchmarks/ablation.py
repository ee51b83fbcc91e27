"""Trainings that answer one question: a YAML of data sets, variants and seeds, run and tabulated.

    python benchmarks/ablation.py run benchmarks/ablations/heads.yaml --data ../shared/data
    python benchmarks/ablation.py run STUDY.yaml --data DIR --device cuda --jobs 12 --seconds 500
    python benchmarks/ablation.py table STUDY.yaml      # Markdown, a CSV and a plot by size

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

A run is a process with one thread: it trains, without validation, and its last weights are judged
on the test split, on which nothing was chosen. It leaves `OUT/DATA/VARIANT/SEED/record.json`; a run
that has one is skipped, one that was stopped goes on from its last epoch. All variants of a seed
come before the next seed. Seconds are CPU seconds of the training process on a CPU, and seconds by
the clock on a GPU, where runs beside each other share them: compare runs of one study alone.
"""

import argparse
import csv
import json
import os
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml

from rfla.files import write_atomically

SAME_LENGTH = 0.05  # equal time: a share of epochs under which the run of equal epochs stands
SHOWN = {
    "ap": "AP",
    "ap50": "AP50",
    "ap75": "AP75",
    "ap_vt": "APvt",
    "ap_t": "APt",
    "ap_s": "APs",
    "olrp": "oLRP",
}


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
        known = {
            "settings",
            "data",
            "variants",
            "seeds",
            "reference",
            "equal_time",
            "peers",
            "split",
        }
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
                    name: seconds_an_epoch(records_of(out, self, data, name))
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


# ------------------------------------------------------------------------------ running


def run_study(study: Study, args: argparse.Namespace) -> None:
    """Run what has no record yet, `--jobs` processes at a time, until `--seconds` have passed."""
    end = time.monotonic() + args.seconds
    check_settings(study)

    def wanted(jobs: Iterator[Job]) -> list[Job]:
        parts = args.only or [""]
        return [job for job in jobs if any(part in f"{job.data}/{job.variant}" for part in parts)]

    jobs = wanted(study.jobs())
    prepare_tiles({(job.data, job.tiles) for job in jobs if job.tiles}, args)
    run_jobs(jobs, args, end)
    run_jobs(wanted(study.timed_jobs(args.out)), args, end)


def check_settings(study: Study) -> None:
    """Stop before the first run where a setting of any run is wrong."""
    from rfla.cfg import load_config, model_part
    from rfla.errors import RflaError
    from rfla.models.zoo import build_from_config

    for job in {job.variant: job for job in study.jobs()}.values():
        try:
            cfg = load_config({**job.settings, "data": "demo"}, mode="train")
            build_from_config(model_part(cfg), num_classes=2)
        except RflaError as error:
            sys.exit(f"{study.name}, {job.variant}: {error}")


def prepare_tiles(wanted: set[tuple[str, int]], args: argparse.Namespace) -> None:
    """Cut the data sets that train on tiles, once."""
    for data, side in sorted(wanted):
        out = args.out / "tiles" / f"{data}-{side}"
        if not out.exists():
            given = [f"source={args.data / data}", f"out={out}", f"tile={side}"]
            rfla = [sys.executable, "-m", "rfla", "convert", "format=coco", "split=train"]
            subprocess.run([*rfla, *given], check=True, stdout=subprocess.DEVNULL)


def run_jobs(jobs: list[Job], args: argparse.Namespace, end: float) -> None:
    """Start processes while there is time; at the end, stop those that still run."""
    waiting = [job for job in jobs if not (args.out / job.place / "record.json").exists()]
    running: list[tuple[Job, subprocess.Popen[bytes]]] = []
    total = len(waiting)
    try:
        while (waiting or running) and time.monotonic() < end:
            while waiting and len(running) < args.jobs:
                job = waiting.pop(0)
                running.append((job, start(job, args)))
            for job, process in list(running):
                if process.poll() is not None:
                    running.remove((job, process))
                    ended = "done" if process.returncode == 0 else "FAILED, see its log.txt"
                    left = total - len(waiting) - len(running)
                    print(f"{left}/{total} {job.place}: {ended}", flush=True)
            time.sleep(0.5)
    finally:  # also where the person stops it: each run saves its state and goes on the next time
        for job, process in running:
            process.terminate()
            print(f"{job.place}: stopped", flush=True)
        for _, process in running:
            process.wait()


def start(job: Job, args: argparse.Namespace) -> "subprocess.Popen[bytes]":
    """Start the process of a run."""
    place = args.out / job.place
    place.mkdir(parents=True, exist_ok=True)
    given = json.dumps(asdict(job))
    command = [sys.executable, __file__, "one", given, "--data", str(args.data)]
    command += ["--out", str(args.out), "--device", args.device]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENCV_FOR_THREADS_NUM": "1"}
    with (place / "log.txt").open("ab") as log:
        return subprocess.Popen(command, stdout=log, stderr=log, env=environment)


def run_one(job: Job, args: argparse.Namespace) -> None:
    """Train and judge in this process, and write `record.json`."""
    import torch

    from rfla import RFLA, __version__

    torch.set_num_threads(1)
    place = args.out / job.place
    whole = args.data / job.data
    data = str(whole) if whole.exists() else job.data
    tiles = args.out / "tiles" / f"{job.data}-{job.tiles}"
    settings = dict(job.settings)
    model = RFLA(settings.pop("model"))
    quiet = {"val": False, "plots": False, "workers": 0, "cache": "ram", "verbose": False}
    where = {"project": str(place), "device": args.device, "exist_ok": True}
    state = place / "train" / "weights" / "last.state.safetensors"
    clock = time.process_time if args.device == "cpu" else time.perf_counter
    started, resumed = clock(), state.exists()
    if resumed:
        model.train(resume=str(place / "train"))
    else:
        given = {**quiet, **where, **settings, "seed": job.seed, "name": "train"}
        model.train(data=str(tiles) if job.tiles else data, **given)
    seconds = clock() - started
    last = RFLA(place / "train" / "weights" / "last.safetensors")
    sliced = {"slice": job.tiles} if job.tiles else {}
    figures = last.val(
        data=data,
        split=job.split,
        name=job.split,
        plots=False,
        workers=0,
        verbose=False,
        **where,
        **sliced,
    )
    record = {
        **asdict(job),
        "seconds": round(seconds, 1),
        "resumed": resumed,
        "figures": figures.figures,
        "device": torch.cuda.get_device_name() if args.device != "cpu" else "one thread of a CPU",
        "torch": torch.__version__,
        "rfla": __version__,
    }
    write_record(place, record)


def write_record(place: Path, record: dict[str, Any]) -> None:
    """Write the record of a run, whole or not at all."""
    write_atomically(place / "record.json", json.dumps(record, indent=1))


# ------------------------------------------------------------------------------ reporting


def records_of(out: Path, study: Study, data: str, variant: str) -> list[dict[str, Any]]:
    """Records of a variant on a data set, one for each seed that is done."""
    files = [out / Job(data, variant, seed, {}).place / "record.json" for seed in study.seeds]
    return [json.loads(file.read_text()) for file in files if file.exists()]


def seconds_an_epoch(records: list[dict[str, Any]]) -> float | None:
    """Median over seeds, of runs that were not stopped in the middle."""
    whole = [r["seconds"] / r["settings"]["epochs"] for r in records if not r["resumed"]]
    return statistics.median(whole) if whole else None


def spread(values: list[float]) -> str:
    """Mean and standard deviation over seeds, as in ".157 ± .004"."""
    mean = statistics.mean(values)
    if min(values) < 0:  # a size that the split has no box of
        return "-"
    deviation = f" ± {statistics.stdev(values):.3f}" if len(values) > 1 else ""
    return f"{mean:.3f}{deviation}".replace("0.", ".")


def write_tables(study: Study, args: argparse.Namespace) -> None:
    """Print a table for each data set; write all records as CSV and the plot by size."""
    rows: list[dict[str, Any]] = []
    for data in study.data:
        names = [name for v in study.variants for name in (v, f"{v}, equal time")] + study.peers
        found = {name: records_of(args.out, study, data, name) for name in names}
        found = {name: records for name, records in found.items() if records}
        if not found:
            continue
        print(f"\n{data} ({study.split} split)\n")
        print_table(found, study.reference)
        rows += [row_of(record) for records in found.values() for record in records]
        if args.plot:
            plot_sizes(found, study.split, args.plot / f"ablation_{study.name}_{data}.png")
    if args.csv and rows:
        with args.csv.open("w", newline="") as file:
            writer = csv.DictWriter(file, rows[0])
            writer.writeheader()
            writer.writerows(rows)


def print_table(found: dict[str, list[dict[str, Any]]], reference: str) -> None:
    columns = [key for key in SHOWN if key in next(iter(found.values()))[0]["figures"]]
    titles = [
        "variant",
        "seeds",
        "epochs",
        *(SHOWN[key] for key in columns),
        "Δ AP",
        "time an epoch",
    ]
    print("| " + " | ".join(titles) + " |\n" + "|---" * len(titles) + "|")
    base = {r["seed"]: r["figures"]["ap"] for r in found.get(reference, [])}
    second = seconds_an_epoch(found.get(reference, []))
    for name, records in found.items():
        deltas = [r["figures"]["ap"] - base[r["seed"]] for r in records if r["seed"] in base]
        delta = f"{statistics.mean(deltas):+.3f}" if deltas and name != reference else ""
        own = seconds_an_epoch(records)
        ratio = f"{own / second:.2f}" if own and second else ""
        figures = [spread([r["figures"][key] for r in records]) for key in columns]
        epochs = str(records[0]["settings"]["epochs"])
        cells = [name, str(len(records)), epochs, *figures, delta.replace("0.", "."), ratio]
        print("| " + " | ".join(cells) + " |")


def row_of(record: dict[str, Any]) -> dict[str, Any]:
    """One line of the CSV."""
    figures = {SHOWN[key]: round(record["figures"].get(key, -1), 4) for key in SHOWN}
    kept = {key: record[key] for key in ("data", "variant", "seed")}
    end = {key: record[key] for key in ("seconds", "device", "torch")}
    return {**kept, "epochs": record["settings"]["epochs"], **figures, **end}


def plot_sizes(found: dict[str, list[dict[str, Any]]], split: str, path: Path) -> None:
    """Draw AP by size: a bar for each variant, with the seeds as dots."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    sizes = ["ap", "ap_vt", "ap_t", "ap_s"]
    figure, axes = plt.subplots(figsize=(7.2, 3.2), layout="constrained")
    width = 0.8 / len(found)
    for number, (name, records) in enumerate(found.items()):
        at = [size + (number - (len(found) - 1) / 2) * width for size in range(len(sizes))]
        values = [[max(r["figures"][key], 0) for r in records] for key in sizes]
        axes.bar(at, [statistics.mean(v) for v in values], width * 0.92, label=name)
        for x, own in zip(at, values, strict=True):
            axes.plot([x] * len(own), own, "o", color="black", markersize=2.5)
    axes.set_xticks(range(len(sizes)), [SHOWN[key] for key in sizes])
    axes.set_ylabel(f"AP on the {split} split")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    figure.savefig(path, dpi=150)
    plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("verb", choices=["run", "table", "one"])
    parser.add_argument("study", help="YAML file; for one: a run as JSON, which run passes on")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="data sets")
    parser.add_argument("--out", type=Path, default=None, help="default: runs/ablation/STUDY")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--jobs", type=int, default=1, help="processes at a time")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="stop after these")
    parser.add_argument("--only", nargs="+", help="runs whose DATA/VARIANT has one of these")
    parser.add_argument("--csv", type=Path, help="table: write every run here")
    parser.add_argument("--plot", type=Path, help="table: write plots into this directory")
    args = parser.parse_args()
    if args.verb == "one":
        run_one(Job(**json.loads(args.study)), args)
        return
    study = Study.read(Path(args.study))
    args.out = args.out or Path("runs/ablation") / study.name
    (run_study if args.verb == "run" else write_tables)(study, args)


if __name__ == "__main__":
    main()

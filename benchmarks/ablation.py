"""Trainings that answer one question: a YAML of data sets, variants and seeds, run and tabulated.

    python benchmarks/ablation.py run benchmarks/ablations/heads.yaml --data ../shared/data
    python benchmarks/ablation.py run STUDY.yaml --data DIR --device cuda --jobs 12 --seconds 500
    python benchmarks/ablation.py table STUDY.yaml      # Markdown, a CSV and a plot by size

`studies.py` says what a study is, `study_tables.py` writes the tables.

A run is a process with one thread: it trains, without validation, and its last weights are judged
on the test split, on which nothing was chosen. It leaves `OUT/DATA/VARIANT/SEED/record.json`; a run
that has one is skipped, one that was stopped goes on from its last epoch. All variants of a seed
come before the next seed. Seconds are CPU seconds of the training process on a CPU, and seconds by
the clock on a GPU, where runs beside each other share them: compare runs of one study alone.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from studies import Job, Study, write_record
from study_tables import write_tables


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
    if args.verb == "run":
        run_study(study, args)
    else:
        write_tables(study, args.out, args.csv, args.plot)


if __name__ == "__main__":
    main()

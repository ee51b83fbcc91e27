"""A long training on the CPU that must not leak: memory, open files and children over time.

    python benchmarks/soak.py --minutes 60 --out docs/soak.png

A small model trains on `data=demo` for the given time, with two loading processes, validation after
every epoch and a state every few seconds. Once a second the memory of the process and of its
children, its open files and its children are counted. The figure and the numbers are written, and
the exit code says whether memory was flat: the median of the last quarter may be 5 % above that of
the second one.
"""

import argparse
import csv
import os
import sys
import tempfile
import threading
import time
from pathlib import Path
from statistics import fmean, median
from typing import Any

GROWTH = 1.05
SETTINGS: dict[str, Any] = {
    "model": "fcos_p2",
    "data": "demo",
    "backbone.name": "resnet18",
    "neck.width": 16,
    "head.width": 16,
    "head.depth": 1,
    "imgsz": 128,
    "batch": 4,
    "epochs": 100_000,
    "fraction": 40.0,
    "workers": 2,
    "device": "cpu",
    "pretrained": False,
    "plots": False,
    "save_minutes": 0.2,
    "verbose": False,
}


def children(process: int) -> list[int]:
    """Ids of the direct children of a process."""
    path = Path(f"/proc/{process}/task/{process}/children")
    return [int(child) for child in path.read_text().split()] if path.exists() else []


def resident_mb(process: int) -> float:
    """Memory that a process has written, with its share of what its children share, in MB.

    Pages of files are left out: how much of a library counts for this process depends on who else
    has it loaded.
    """
    try:
        lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0.0
    return (
        sum(int(line.split()[1]) for line in lines if line.startswith(("Pss_Anon:", "Pss_Shmem:")))
        / 1024
    )


class Watch(threading.Thread):
    """Counts once in `period` seconds until `done` is set."""

    def __init__(self, period: float) -> None:
        super().__init__(daemon=True)
        self.period, self.done, self.rows = period, threading.Event(), []
        self.started = time.monotonic()

    def run(self) -> None:
        """Count until told to stop."""
        while not self.done.wait(self.period):
            self.rows.append(self.count())

    def count(self) -> dict[str, float]:
        """Return one row of numbers."""
        own = os.getpid()
        offspring = children(own)
        return {
            "minutes": (time.monotonic() - self.started) / 60,
            "main_mb": resident_mb(own),
            "workers_mb": sum(resident_mb(child) for child in offspring),
            "open_files": float(len(os.listdir("/proc/self/fd"))),
            "children": float(len(offspring)),
        }


def draw(path: Path, rows: list[dict[str, float]]) -> None:
    """Write the figure: memory, and open files with children, over the minutes.

    Thick: means of whole minutes.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4.5), layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True)
    minutes = [row["minutes"] for row in rows]
    whole = range(int(minutes[-1]))
    for axis, columns, title in (
        (
            upper,
            {"main_mb": "main process", "workers_mb": "loading processes"},
            "memory written, MB",
        ),
        (
            lower,
            {"open_files": "open files", "children": "child processes"},
            "open files and child processes",
        ),
    ):
        for number, (name, label) in enumerate(columns.items()):
            means = [
                fmean(row[name] for row in rows if int(row["minutes"]) == minute)
                for minute in whole
            ]
            axis.plot(
                minutes, [row[name] for row in rows], color=f"C{number}", alpha=0.3, linewidth=0.6
            )
            axis.plot(
                [minute + 0.5 for minute in whole],
                means,
                color=f"C{number}",
                label=label,
                linewidth=2,
            )
        axis.set_title(title, fontsize=9, loc="left")
        axis.set_ylim(0, 1.25 * max(row[name] for row in rows for name in columns))
        axis.legend(fontsize=8, frameon=False, ncols=2, loc="upper right")
        axis.grid(alpha=0.25)
    lower.set_xlabel("minutes")
    figure.savefig(path, dpi=110)


def judge(rows: list[dict[str, float]]) -> dict[str, tuple[float, float]]:
    """Return for each column the medians of the second and of the last quarter.

    The first one warms up.
    """
    quarter = max(len(rows) // 4, 1)
    second, last = rows[quarter : 2 * quarter], rows[-quarter:]
    return {
        name: (median(r[name] for r in second), median(r[name] for r in last)) for name in rows[0]
    }


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--period", type=float, default=1.0, help="seconds between two counts")
    parser.add_argument(
        "--out", default="soak.png", help="the figure; the numbers go beside it as .csv"
    )
    parser.add_argument(
        "--set", nargs="*", default=[], metavar="KEY=VALUE", help="other settings of the run"
    )
    options = parser.parse_args(arguments)

    from rfla.cfg import Config, load_config
    from rfla.cfg.tokens import parse_tokens
    from rfla.engine.trainer import train
    from rfla.tools.demo import prepare_demo

    watch = Watch(options.period)
    with tempfile.TemporaryDirectory() as folder:
        settings = (
            SETTINGS
            | {"project": folder, "time": options.minutes / 60}
            | parse_tokens(options.set, Config)
        )
        before = watch.count()
        watch.start()
        prepare_demo(settings["data"])
        train(load_config(settings, mode="train"))
    watch.done.set()
    watch.join()
    after = watch.count()
    out = Path(options.out)
    with out.with_suffix(".csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(before))
        writer.writeheader()
        writer.writerows(watch.rows)
    draw(out, watch.rows)
    quarters = judge(watch.rows)
    for name, (early, late) in quarters.items():
        print(f"{name}: {early:.1f} in the second quarter, {late:.1f} in the last")
    print(f"before and after: {before['open_files']:.0f} and {after['open_files']:.0f} open files, "
          f"{before['children']:.0f} and {after['children']:.0f} children")  # fmt: skip
    flat = all(
        late <= GROWTH * early for early, late in (quarters["main_mb"], quarters["open_files"])
    )
    return 0 if flat and after["children"] <= before["children"] else 1


if __name__ == "__main__":
    sys.exit(main())

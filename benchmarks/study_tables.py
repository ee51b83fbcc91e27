"""The tables, the CSV and the plots of a study of `ablation.py`."""

import csv
import itertools
import statistics
from collections.abc import Iterable, Sequence
from operator import itemgetter
from pathlib import Path
from typing import Any

from studies import Study, records_of, seconds_an_epoch, time_and_epochs

FIGURES = {
    "ap": "AP",
    "ap50": "AP50",
    "ap75": "AP75",
    "ap_vt": "APvt",
    "ap_t": "APt",
    "ap_s": "APs",
    "olrp": "oLRP",
}
NONE = -1.0  # a size that the split has no box of
Row = dict[str, Any]  # a run, as a line of the CSV


def write_tables(study: Study, out: Path, csv_file: Path | None, plots: Path | None) -> None:
    """Print a table for each data set and device; write all runs as CSV and the plots by size.

    Args:
        study: what was run.
        out: its output directory.
        csv_file: every run as a line. One that is there is read first, and its runs are kept but
            for those that have a record in `out`: other machines have added them. None: not
            written.
        plots: directory of the plots; None: not drawn.
    """
    rows = read_csv(csv_file) if csv_file and csv_file.exists() else []
    names = [name for v in study.variants for name in (v, f"{v}, equal time")] + study.peers
    ours = [
        row_of(record)
        for data in study.data
        for name in names
        for record in records_of(out, study, data, name)
    ]
    key = itemgetter("data", "variant", "seed", "device")
    rows = list(({key(row): row for row in rows} | {key(row): row for row in ours}).values())
    place = {name: number for number, name in enumerate(names)}
    if unknown := {row["variant"] for row in rows} - set(place):
        raise SystemExit(f"{csv_file}: {sorted(unknown)} is no variant of the study {study.name}")
    shown = [name for name in names if any(row["variant"] == name for row in rows)]
    sets = list(study.data)
    rows.sort(key=lambda r: (sets.index(r["data"]), r["device"], place[r["variant"]], r["seed"]))
    for data, group in itertools.groupby(rows, itemgetter("data")):
        everywhere = list(group)
        for device, runs in itertools.groupby(everywhere, itemgetter("device")):
            print(f"\n{data} ({study.split} split, {device})\n")
            print_table(list(runs), study.reference, everywhere)
        if plots:
            everywhere.sort(key=lambda row: place[row["variant"]])
            picture = plots / f"ablation_{study.name}_{data}.png"
            plot_sizes(of_one_device(everywhere), study.split, shown, picture)
    if csv_file and rows:
        with csv_file.open("w", newline="") as file:
            writer = csv.DictWriter(file, rows[0], lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)


def row_of(record: dict[str, Any]) -> Row:
    """A run as a line of the CSV."""
    figures = {name: round(record["figures"].get(key, NONE), 4) for key, name in FIGURES.items()}
    kept = {key: record[key] for key in ("data", "variant", "seed")}
    end = {key: record[key] for key in ("device", "torch")}
    seconds, epochs = time_and_epochs(record)
    return {**kept, "epochs": epochs, **figures, "seconds": seconds, **end}


def read_csv(file: Path) -> list[Row]:
    """Read the lines that `write_tables` wrote."""
    with file.open(newline="") as lines:
        return [
            row
            | {key: int(row[key]) for key in ("seed", "epochs")}
            | {key: float(row[key]) for key in FIGURES.values()}
            | {"seconds": float(row["seconds"]) if row["seconds"] else None}
            for row in csv.DictReader(lines)
        ]


def by_variant(runs: Iterable[Row]) -> dict[str, list[Row]]:
    """The runs of each variant, in the order of the study."""
    return {name: list(own) for name, own in itertools.groupby(runs, itemgetter("variant"))}


def spread(values: list[float]) -> str:
    """Mean and standard deviation over seeds, as in ".157 ± .004"."""
    if min(values) == NONE:
        return "-"
    deviation = f" ± {statistics.stdev(values):.3f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.3f}{deviation}".replace("0.", ".")


def time_of(runs: Sequence[Row]) -> float | None:
    """Seconds an epoch of a variant."""
    return seconds_an_epoch((run["seconds"], run["epochs"]) for run in runs)


def print_table(runs: Sequence[Row], reference: str, everywhere: Sequence[Row]) -> None:
    """Print the runs of one data set on one device as Markdown.

    Differences are against the reference of the same seed, on this device where it has one.

    Args:
        runs: of the table.
        reference: variant.
        everywhere: the runs of the data set on all devices.
    """
    found = by_variant(runs)
    base = {run["seed"]: run["AP"] for run in (*everywhere, *runs) if run["variant"] == reference}
    second = time_of(found.get(reference, []))
    titles = ["variant", "seeds", "epochs", *FIGURES.values(), "Δ AP", "time per epoch"]
    print("| " + " | ".join(titles) + " |\n" + "|---" * len(titles) + "|")
    for name, own in found.items():
        deltas = [run["AP"] - base[run["seed"]] for run in own if run["seed"] in base]
        delta = f"{statistics.mean(deltas):+.3f}" if deltas and name != reference else ""
        time = time_of(own)
        ratio = f"{time / second:.2f}" if time and second else ""
        figures = [spread([run[key] for run in own]) for key in FIGURES.values()]
        cells = [name, str(len(own)), str(own[0]["epochs"]), *figures]
        print("| " + " | ".join([*cells, delta.replace("0.", "."), ratio]) + " |")


def of_one_device(runs: Sequence[Row]) -> list[Row]:
    """The runs of each variant on the device that has most of them: each seed once."""
    kept: list[Row] = []
    for own in by_variant(runs).values():
        devices = [run["device"] for run in own]
        most = max(devices, key=devices.count)
        kept += [run for run in own if run["device"] == most]
    return kept


def plot_sizes(runs: Sequence[Row], split: str, variants: Sequence[str], path: Path) -> None:
    """Draw AP by size: a bar for each variant, with the seeds as dots.

    Args:
        runs: of one data set.
        split: that was judged.
        variants: all of the study, so that one has the same colour in every plot.
        path: of the picture.
    """
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    found = by_variant(runs)
    sizes = [size for size in ("AP", "APvt", "APt", "APs") if runs[0][size] != NONE]
    figure, axes = plt.subplots(figsize=(7.2, 3.2), layout="constrained")
    width = 0.8 / len(found)
    dark_first = [*range(0, 20, 2), *range(1, 20, 2)]
    colors = [plt.get_cmap("tab20")(number) for number in dark_first]
    for number, (name, own) in enumerate(found.items()):
        at = [size + (number - (len(found) - 1) / 2) * width for size in range(len(sizes))]
        values = [[run[key] for run in own] for key in sizes]
        color = colors[variants.index(name) % len(colors)]
        axes.bar(at, [statistics.mean(v) for v in values], width * 0.92, label=name, color=color)
        for x, points in zip(at, values, strict=True):
            axes.plot([x] * len(points), points, "o", color="black", markersize=2.5)
    axes.set_xticks(range(len(sizes)), sizes)
    axes.set_title(runs[0]["data"], loc="left", fontsize=10)
    axes.set_ylabel(f"AP on the {split} split")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    figure.savefig(path, dpi=150)
    plt.close(figure)

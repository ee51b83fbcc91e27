"""The tables, the CSV and the plots of a study of `ablation.py`."""

import csv
import statistics
from pathlib import Path
from typing import Any

from studies import Study, records_of, seconds_an_epoch

SHOWN = {
    "ap": "AP",
    "ap50": "AP50",
    "ap75": "AP75",
    "ap_vt": "APvt",
    "ap_t": "APt",
    "ap_s": "APs",
    "olrp": "oLRP",
}


def spread(values: list[float]) -> str:
    """Mean and standard deviation over seeds, as in ".157 ± .004"."""
    mean = statistics.mean(values)
    if min(values) < 0:  # a size that the split has no box of
        return "-"
    deviation = f" ± {statistics.stdev(values):.3f}" if len(values) > 1 else ""
    return f"{mean:.3f}{deviation}".replace("0.", ".")


def write_tables(study: Study, out: Path, csv_file: Path | None, plots: Path | None) -> None:
    """Print a table for each data set; write all records as CSV and the plot by size.

    Args:
        study: what was run.
        out: its output directory.
        csv_file: every run as a line; None: not written.
        plots: directory of the plots; None: not drawn.
    """
    rows: list[dict[str, Any]] = []
    for data in study.data:
        names = [name for v in study.variants for name in (v, f"{v}, equal time")] + study.peers
        found = {name: records_of(out, study, data, name) for name in names}
        found = {name: records for name, records in found.items() if records}
        if not found:
            continue
        print(f"\n{data} ({study.split} split)\n")
        print_table(found, study.reference)
        rows += [row_of(record) for records in found.values() for record in records]
        if plots:
            plot_sizes(found, study.split, plots / f"ablation_{study.name}_{data}.png")
    if csv_file and rows:
        with csv_file.open("w", newline="") as file:
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

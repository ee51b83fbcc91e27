"""Fail if the newest run under runs/, the demo's, is below the floor that the README states."""

import csv
import re
from pathlib import Path

README = Path(__file__).resolve().parent.parent / "README.md"


def main() -> None:
    """Compare the best AP50 of the newest run with the floor."""
    results = max(Path("runs").glob("*/results.csv"), key=lambda path: path.stat().st_mtime)
    stated = re.search(r"AP50 of at least (0\.\d+)", README.read_text())
    if stated is None:
        raise SystemExit("README.md states no floor ('AP50 of at least 0.xx') for the demo")
    floor = float(stated.group(1))
    with results.open(newline="") as file:
        rows = list(csv.DictReader(file))
    best = max(rows, key=lambda row: float(row["metrics/ap"]))
    ap50 = float(best["metrics/ap50"])
    ap = float(best["metrics/ap"])
    print(f"demo: AP50 {ap50:.3f}, AP {ap:.3f} in epoch {best['epoch']}; the floor is {floor}")
    if ap50 < floor:
        raise SystemExit(f"the demo's AP50 {ap50:.3f} is below the README's floor of {floor}")


if __name__ == "__main__":
    main()

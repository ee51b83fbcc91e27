"""The figures of each epoch: rows of `results.csv`, and TensorBoard where asked for.

TensorBoard is an extra, and slow to import.
"""

import csv
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rfla.errors import ConfigError, ExistingRunError, extra_needed
from rfla.files import write_atomically


class ResultsFile:
    """`results.csv`: one row an epoch. Rewritten whole, so that it is never half a row."""

    def __init__(self, path: Path):
        self.path = path
        self.rows: list[dict[str, str]] = []

    def load(self, epochs: int) -> None:
        """Take over the rows of an interrupted run, up to the epoch that it goes on from.

        Raises:
            ExistingRunError: The file has been changed to something else.
        """
        if not self.path.is_file():
            return
        try:
            with self.path.open(newline="", encoding="utf-8") as file:
                self.rows = [row for row in csv.DictReader(file) if int(row["epoch"]) <= epochs]
        except (KeyError, TypeError, ValueError, csv.Error) as error:
            raise ExistingRunError(
                f"{self.path}: no longer the table of this run; move it away, and "
                "resume= starts a new one"
            ) from error

    def add(self, row: Mapping[str, float | int]) -> None:
        """Add an epoch and write the file."""
        self.rows.append({key: f"{value:.6g}" for key, value in row.items()})
        # Rows of a run resumed with other settings may have more columns.
        columns = list(dict.fromkeys(key for one in self.rows for key in one))
        text = io.StringIO()
        writer = csv.DictWriter(text, columns, lineterminator="\n", restval="")
        writer.writeheader()
        writer.writerows(self.rows)
        write_atomically(self.path, text.getvalue())

    def column(self, name: str) -> list[float]:
        """Return a column as numbers (NaN where an epoch lacks it)."""
        return [float(row.get(name) or "nan") for row in self.rows]


class TensorBoard:
    """Writes event files into a run directory.

    Args:
        run_dir: Where; None writes nothing.

    Raises:
        ConfigError: TensorBoard is not installed.
    """

    def __init__(self, run_dir: Path | None):
        self.writer: Any = None
        if run_dir is None:
            return
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise ConfigError(
                f"tensorboard=true: not installed ({error}); {extra_needed('log')}"
            ) from error
        self.writer = SummaryWriter(str(run_dir))

    def add(self, row: Mapping[str, float], epoch: int) -> None:
        """Write one epoch's figures."""
        if self.writer is not None:
            for name, value in row.items():
                if name != "epoch":
                    self.writer.add_scalar(name, value, epoch)
            self.writer.flush()

    def close(self) -> None:
        """End the event file."""
        if self.writer is not None:
            self.writer.close()

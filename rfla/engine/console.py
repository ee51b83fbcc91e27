"""What a run prints, and its `results.csv`: two lines an epoch, one for the losses and one for the figures."""

import csv
import io
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from rfla.errors import ExistingRunError
from rfla.files import write_atomically

FIGURES = ("ap", "ap50", "ap75", "ap_vt", "ap_t", "ap_s", "ap_m")


def make_console(quiet: bool = False) -> Console:
    """Return the console of a run; a log file or a pipe gets whole lines without colours.

    Nothing in a text is read as markup: paths and names of classes may hold brackets.
    """
    return Console(highlight=False, markup=False, soft_wrap=True, quiet=quiet)


class Progressor:
    """A progress bar on a terminal; nothing elsewhere, where a bar would fill a log file."""

    def __init__(self, console: Console, enabled: bool = True):
        self.console = console
        self.enabled = enabled and console.is_terminal
        self._bar: Progress | None = None
        self._task: TaskID | None = None

    @contextmanager
    def over(self, total: int, text: str) -> Iterator["Progressor"]:
        """Show a bar of `total` steps while the block runs."""
        if not self.enabled:
            yield self
            return
        columns = (
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=self.console, transient=True) as bar:
            self._bar, self._task = bar, bar.add_task(text, total=total)
            try:
                yield self
            finally:
                self._bar = None

    def step(self, count: int = 1, text: str | None = None) -> None:
        """Move on by `count`, with a new text if given."""
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, advance=count, description=text)


def loss_line(
    epoch: int, epochs: int, means: Mapping[str, float], row: Mapping[str, float]
) -> Text:
    """Return the line of an epoch's training: its losses, positives per box, learning rate, speed."""
    parts = " ".join(
        f"{name.replace('loss_', '')} {value:.3f}"
        for name, value in means.items()
        if name not in ("grad_norm", "positives_per_box", "loss")
    )
    memory = f" mem {row['memory_mb'] / 1024:.1f}G" if row["memory_mb"] else ""
    return Text.assemble(
        (f"{epoch + 1:>4}/{epochs}", "bold"),
        f" loss {means.get('loss', float('nan')):.3f} ({parts}) "
        f"grad {means['grad_norm']:.1f} pos/box {means['positives_per_box']:.2f} lr {row['lr']:.2g} "
        f"{row['images_per_s']:.1f} img/s wait {row['data_wait']:.0%}{memory}",
        (f" skipped {int(row['skipped'])}" if row["skipped"] else "", "red"),
    )


def metric_line(figures: Mapping[str, float], best: bool) -> Text:
    """Return the line of an epoch's validation; `-` where the split has no box of a size."""
    told = {
        name: f"{figures[name]:.3f}" if figures[name] >= 0 else "-"
        for name in FIGURES
        if name in figures
    }
    text = " ".join(f"{name.upper().replace('_', '')} {value}" for name, value in told.items())
    return Text.assemble(" " * 10, (text, "cyan"), ("  best" if best else "", "green"))


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
                f"{self.path}: not the table of the run any more; move it away, and resume= begins a new one"
            ) from error

    def add(self, row: Mapping[str, float | int]) -> None:
        """Add an epoch and write the file."""
        self.rows.append({key: f"{value:.6g}" for key, value in row.items()})
        columns = list(dict.fromkeys(key for one in self.rows for key in one))
        text = io.StringIO()
        writer = csv.DictWriter(text, columns, lineterminator="\n", restval="")
        writer.writeheader()
        writer.writerows(self.rows)
        write_atomically(self.path, text.getvalue())

    def column(self, name: str) -> list[float]:
        """Return a column as numbers (NaN where an epoch lacks it)."""
        return [float(row.get(name) or "nan") for row in self.rows]

"""What a run says on the terminal: its progress, and two lines an epoch."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import rich.progress
from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text

from rfla.errors import for_terminal
from rfla.names import metric_label

FIGURES = ("ap", "ap50", "ap75", "ap_vt", "ap_t", "ap_s", "ap_m")


class CleanConsole(Console):
    """A console that shows control characters in names from files, and does not send them."""

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterator[Segment]:
        """Yield the pieces of a line, each with its text made printable."""
        for segment in super().render(renderable, options):
            shown = segment.text if segment.control else for_terminal(segment.text)
            yield Segment(shown, segment.style, segment.control)


def make_console(quiet: bool = False) -> Console:
    """Return the console of a run; a log file or a pipe gets whole lines without colours.

    Nothing in a text is read as markup: paths and names of classes may hold brackets.
    """
    return CleanConsole(highlight=False, markup=False, soft_wrap=True, quiet=quiet)


def remark(console: Console, text: str) -> None:
    """Print a line that the user should look at."""
    console.print(text, style="yellow")


class Progress:
    """How far a pass has come: a bar on a terminal, a line now and then in a log file.

    A log gets a line for each tenth of the pass, but not within `SHORTEST` seconds of the last one,
    and after `LONGEST` seconds in any case.
    """

    SHORTEST, LONGEST = 10.0, 60.0

    def __init__(self, console: Console):
        self.console = console
        self._bar: rich.progress.Progress | None = None
        self._task: rich.progress.TaskID | None = None
        self._what, self._unit, self._text = "", "", ""
        self._done = self._total = 0
        self._began = self._last_line = 0.0
        self._done_at_last_line = 0

    @contextmanager
    def over(self, total: int, what: str, unit: str = "images") -> Iterator["Progress"]:
        """Show `total` steps while the block runs.

        Args:
            total: Steps of the pass.
            what: Its name.
            unit: What a step is.
        """
        self._what, self._unit, self._text = what, unit, ""
        self._done = self._done_at_last_line = 0
        self._total = total
        self._began = self._last_line = time.monotonic()
        if not self.console.is_terminal or self.console.is_dumb_terminal:
            yield self
            return
        columns = (
            rich.progress.TextColumn("{task.description}", markup=False),
            rich.progress.BarColumn(bar_width=24),
            rich.progress.MofNCompleteColumn(),
            rich.progress.TextColumn("{task.fields[figures]}", markup=False),
        )
        with rich.progress.Progress(*columns, console=self.console, transient=True) as bar:
            self._bar = bar
            self._task = bar.add_task(what, total=total, figures="")
            try:
                yield self
            finally:
                self._bar = None

    def step(self, count: int = 1, text: str | None = None) -> None:
        """Move on by `count`.

        Args:
            count: Steps done.
            text: Figures that stand behind the count from now on, the time that is left among them;
                without any the time that is left of the pass stands there.
        """
        self._done += count
        self._total = max(self._total, self._done)  # a file may hold more images than expected
        self._text = text if text is not None else self._text
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, advance=count, total=self._total, figures=self._figures())
        elif self._line_is_due():
            self.console.print(
                f"{self._what}: {self._done}/{self._total} {self._unit}, {self._figures()}"
            )
            self._last_line, self._done_at_last_line = time.monotonic(), self._done

    def _figures(self) -> str:
        passed = time.monotonic() - self._began
        left = passed / max(self._done, 1) * (self._total - self._done)
        return self._text or f"{duration(left)} left"

    def _line_is_due(self) -> bool:
        if not 0 < self._done < self._total:
            return False  # the line at the end of a pass is another one
        passed = time.monotonic() - self._last_line
        tenth = 10 * (self._done - self._done_at_last_line) >= self._total
        return passed >= self.LONGEST or (tenth and passed >= self.SHORTEST)


def duration(seconds: float) -> str:
    """Return hours, minutes and seconds as `1:02:03`."""
    whole = round(seconds)
    return f"{whole // 3600}:{whole // 60 % 60:02}:{whole % 60:02}"


def loss_line(
    epoch: int, epochs: int, means: Mapping[str, float], row: Mapping[str, float]
) -> Text:
    """Return the line of an epoch's training: losses, positives per box, learning rate, speed."""
    parts = " ".join(
        f"{name.replace('loss_', '')} {value:.3f}"
        for name, value in means.items()
        if name not in ("grad_norm", "positives_per_box", "loss")
    )
    memory = f" mem {row['memory_mb'] / 1024:.1f}G" if row["memory_mb"] else ""
    return Text.assemble(
        (f"{epoch + 1:>4}/{epochs}", "bold"),
        f" loss {means.get('loss', float('nan')):.3f} ({parts}) "
        f"grad {means['grad_norm']:.1f} pos/box {means['positives_per_box']:.2f} "
        f"lr {row['lr']:.2g} {row['images_per_s']:.1f} img/s wait {row['data_wait']:.0%}{memory}",
        (f" skipped {int(row['skipped'])}" if row["skipped"] else "", "red"),
    )


def metric_line(figures: Mapping[str, float], best: bool) -> Text:
    """Return the line of an epoch's validation; `-` where the split has no box of a size."""
    shown = {
        name: f"{figures[name]:.3f}" if figures[name] >= 0 else "-"
        for name in FIGURES
        if name in figures
    }
    text = " ".join(f"{metric_label(name)} {value}" for name, value in shown.items())
    return Text.assemble(" " * 10, (text, "cyan"), ("  best" if best else "", "green"))

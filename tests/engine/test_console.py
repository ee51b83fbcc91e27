"""Progress in a log file, and lines of figures."""

import io
import re
from collections.abc import Iterator

import pytest
from rich.console import Console

from rfla.engine import console
from rfla.engine.console import Progress, duration


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[float]]:
    now = [100.0]
    monkeypatch.setattr(console.time, "monotonic", lambda: now[0])
    yield now


def lines_of(clock: list[float], steps: int, seconds: float, text: str | None = None) -> list[str]:
    """What a pass of so many steps prints into a file, each step taking so many seconds."""
    file = io.StringIO()
    with Progress(Console(file=file, soft_wrap=True)).over(steps, "epoch 2/3", "batches") as bar:
        for _ in range(steps):
            clock[0] += seconds
            bar.step(text=text)
    return file.getvalue().splitlines()


def test_a_line_for_each_tenth_of_a_pass(clock: list[float]) -> None:
    lines = lines_of(clock, 200, 1.0)
    assert lines[0] == "epoch 2/3: 20/200 batches, 0:03:00 left"
    assert [int(re.findall(r": (\d+)/", line)[0]) for line in lines] == list(range(20, 200, 20))


def test_a_line_every_minute_of_a_long_pass(clock: list[float]) -> None:
    lines = lines_of(clock, 10_000, 2.0, "loss 0.5, 8.0 img/s, 1:02:03 left")
    assert lines[0] == "epoch 2/3: 30/10000 batches, loss 0.5, 8.0 img/s, 1:02:03 left"
    assert len(lines) == 20_000 // 60


def test_no_line_in_a_pass_of_seconds(clock: list[float]) -> None:
    assert lines_of(clock, 100, 0.09) == []


def test_durations() -> None:
    assert [duration(value) for value in (0.4, 59.6, 3723, 90_000)] == [
        "0:00:00", "0:01:00", "1:02:03", "25:00:00",
    ]  # fmt: skip

"""A progress bar on the terminal, for what takes minutes."""

from collections.abc import Iterable, Iterator
from typing import TypeVar

from rfla.errors import printable

Item = TypeVar("Item")


def tracked(
    items: Iterable[Item], what: str, total: int | None, show: bool, unit: str = "images"
) -> Iterator[Item]:
    """Pass items on, counted by a bar on standard error.

    Args:
        items: What is counted.
        what: Name of the bar.
        total: How many there will be; None where that is not known.
        show: Where false, and where standard error is no terminal, nothing is printed.
        unit: What the items are.
    """
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    console = Console(stderr=True)
    columns = (
        *(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn(unit),
        ),
        *(TimeElapsedColumn(), TimeRemainingColumn()),
    )
    with Progress(*columns, console=console, disable=not (show and console.is_terminal)) as bar:
        yield from bar.track(items, total=total, description=printable(what))

"""Work that a thread does a few items behind: results are written while the network runs on."""

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Generic, Self, TypeVar

T = TypeVar("T")


class BackgroundWork(Generic[T]):
    """Runs a function over items in order, in one worker thread.

    Leaving the block waits for the items that were handed over, also on Ctrl-C.

    Args:
        work: What to do with an item, in the thread.
        count: How many items wait at most; then `add` waits too.
    """

    def __init__(self, work: Callable[[T], None], count: int):
        self._work, self._count = work, count
        self._thread = ThreadPoolExecutor(1, "rfla outputs")
        self._waiting: deque[Future[None]] = deque()

    def add(self, item: T) -> None:
        """Hand over the next item; raises what the work on an earlier one raised."""
        self._waiting.append(self._thread.submit(self._work, item))
        while len(self._waiting) > self._count or (self._waiting and self._waiting[0].done()):
            self._waiting.popleft().result()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Wait; raise what the work raised, unless there is an error already."""
        self._thread.shutdown()
        if kind is None:
            for done in self._waiting:
                done.result()

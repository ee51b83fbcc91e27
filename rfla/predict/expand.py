"""From sources to images: one after the other, read ahead by a thread."""

from collections.abc import Iterable, Iterator
from queue import Full, Queue
from threading import Event, Thread
from typing import TypeVar

from rfla.predict.source_image import Reading, Source, SourceImage

T = TypeVar("T")

AHEAD = 4  # frames in memory that nobody asked for yet


def images_of(sources: Iterable[Source], how: Reading) -> Iterator[SourceImage]:
    """Yield the images of all sources in order; videos and pages are read while others run."""
    return _ahead(image for source in sources for image in source.images(how))


class _End:
    """Behind the last item: what ended the iterator, if it was an exception."""

    def __init__(self, error: BaseException | None = None):
        self.error = error


def _ahead(items: Iterator[T]) -> Iterator[T]:
    """Yield what an iterator yields, while a thread takes the next items from it.

    The thread is a daemon: a camera or a download that hangs does not keep the program alive.
    """
    queue: Queue[T | _End] = Queue(AHEAD)
    stopped = Event()

    def put(item: T | _End) -> None:
        while not stopped.is_set():
            try:
                queue.put(item, timeout=0.1)
                return
            except Full:
                continue

    def fill() -> None:
        end = _End()
        try:
            for item in items:
                put(item)
                if stopped.is_set():
                    break
        except BaseException as error:
            end = _End(error)
        put(end)

    Thread(target=fill, name="rfla sources", daemon=True).start()
    try:
        while not isinstance(item := queue.get(), _End):
            yield item
        if item.error is not None:
            raise item.error
    finally:
        stopped.set()

"""The images of all sources, prefetched by a thread."""

from collections.abc import Generator, Iterable, Iterator
from queue import Full, Queue
from threading import Event, Thread
from typing import TypeVar

from rfla.predict.source_image import Reading, Source, SourceImage

T = TypeVar("T")


def images_of(sources: Iterable[Source], how: Reading) -> Iterator[SourceImage]:
    """Yield the images of all sources in order."""
    return (image for source in sources for image in source.images(how))


class _End:
    """Behind the last item: what ended the iterator, if it was an exception."""

    def __init__(self, error: BaseException | None = None):
        self.error = error


def ahead(items: Iterator[T], count: int) -> Generator[T]:
    """Yield what an iterator yields as soon as it does, while a thread takes the next ones from it.

    The thread is a daemon: a camera or a download that hangs does not keep the program alive.

    Args:
        items: May block, and need not end.
        count: How many wait at most, until somebody asks for them.
    """
    queue: Queue[T | _End] = Queue(count)
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

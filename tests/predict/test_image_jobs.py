"""Reading ahead: how far, and that nothing more is begun once nobody asks."""

import time
from collections import deque
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from threading import Lock

import numpy as np
import pytest

from rfla.data.images import Image
from rfla.predict.image_jobs import READERS, _in_turn, pieces, readers
from rfla.predict.notes import Notes
from rfla.predict.options import PredictOptions
from rfla.predict.slices import Slices


@dataclass
class Slow:
    """A picture that takes its time; `begun` counts those that are being read or were."""

    begun: list[int]
    lock = Lock()
    name, file, by_windows = "slow", None, False

    def read(self, value_range: object, remarks: object) -> Image:
        with self.lock:
            self.begun[0] += 1
        time.sleep(0.02)
        return np.zeros((8, 8, 3), np.uint8)


@pytest.mark.parametrize(("slices", "ahead"), [(None, 16), (Slices(8), READERS)])
def test_no_image_is_begun_after_the_end(slices: Slices | None, ahead: int) -> None:
    """Of 16 that wait, those that are being read when the first is there, and its followers."""
    begun = [0]
    options = PredictOptions(imgsz=32, batch=16, slices=slices)
    images = [Slow(begun) for _ in range(200)]
    with closing(pieces(images, options, Notes(), deque())) as every:  # type: ignore[type-var]
        next(every)
        time.sleep(0.5)
        assert READERS < begun[0] <= 2 * READERS + ahead
        next(every)
    ended = begun[0]
    assert ended <= 2 * READERS + ahead + 2
    time.sleep(0.1)
    assert begun[0] == ended


def test_what_waits_for_a_thread_is_given_up() -> None:
    begun = []

    def work(number: int) -> int:
        begun.append(number)
        time.sleep(0.02)
        return number

    started = time.monotonic()
    with readers(1) as reader, closing(_in_turn(reader, work, range(1000), 500)) as every:
        assert next(every) == 0
    assert len(begun) < 50 and time.monotonic() - started < 5  # not 500
    with readers(2) as reader:
        assert list(_in_turn(reader, work, range(5), 3)) == [0, 1, 2, 3, 4]


def test_readers_end_with_what_they_do(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), readers(1) as reader:
        reader.submit(time.sleep, 0.05)
        waiting = reader.submit((tmp_path / "late").touch)
        raise KeyboardInterrupt
    assert waiting.cancelled() and not (tmp_path / "late").exists()

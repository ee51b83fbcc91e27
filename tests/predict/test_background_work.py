"""A thread that writes behind: order, bound, errors, and what an interrupt leaves."""

from threading import current_thread, main_thread
from time import sleep

import pytest

from rfla.predict.background_work import BackgroundWork


def test_in_order_and_never_far_behind() -> None:
    """While an item is being done, at most `count` others were handed over, beside it."""
    handed, lead, done = [], [], []

    def work(item: int) -> None:
        assert current_thread() is not main_thread()
        sleep(0.002)
        lead.append(len(handed) - item)
        done.append(item)

    with BackgroundWork(work, 2) as thread:
        for item in range(20):
            handed.append(item)
            thread.add(item)
    assert done == list(range(20))
    assert max(lead) <= 3


def test_an_error_ends_it() -> None:
    """A full disk is raised by a later `add`, or at the end by leaving the block."""

    def work(item: int) -> None:
        if item == 1:
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"), BackgroundWork(work, 9) as thread:
        for item in range(2):
            thread.add(item)
    with pytest.raises(OSError, match="disk full"), BackgroundWork(work, 1) as thread:
        while True:
            thread.add(1)


def test_an_interrupt_waits_for_what_was_handed_over() -> None:
    done = []

    def work(item: int) -> None:
        sleep(0.002)
        done.append(item)

    with pytest.raises(KeyboardInterrupt), BackgroundWork(work, 5) as thread:
        for item in range(4):
            thread.add(item)
        raise KeyboardInterrupt
    assert done == [0, 1, 2, 3]

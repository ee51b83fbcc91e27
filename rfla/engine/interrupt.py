"""Ctrl-C and SIGTERM end a run between two steps, with its state written.

A second Ctrl-C ends it at once.
"""

import signal
import threading
from types import FrameType
from typing import Any


class Stopped(KeyboardInterrupt):
    """The run ends here because somebody asked.

    Raised between two optimiser steps, where the state is whole.
    """


class Interrupt:
    """Remembers that somebody asked the run to stop.

    Attributes:
        asked: Whether a signal came since `listen`.
    """

    SIGNALS = (signal.SIGINT, signal.SIGTERM)

    def __init__(self) -> None:
        self.asked = False
        self._before: dict[int, Any] = {}

    def listen(self) -> None:
        """Take the signals over.

        Only the main thread may, elsewhere (a notebook's thread) this does nothing.
        """
        if threading.current_thread() is threading.main_thread():
            self._before = {
                number: signal.signal(number, self._remember) for number in self.SIGNALS
            }

    def ignore(self) -> None:
        """Give the signals back to whoever had them."""
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}

    def _remember(self, number: int, frame: FrameType | None) -> None:
        if self.asked and number == signal.SIGINT:
            self.ignore()
            # in the middle of a step: nothing is saved then, the files before stay
            raise KeyboardInterrupt
        self.asked = True

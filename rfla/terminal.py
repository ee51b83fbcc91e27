"""How the command prints and ends: text of files made harmless, one-line errors, signals."""

import logging
import os
import re
import sys
import traceback
from collections.abc import Sequence

from rfla.errors import for_terminal

INTERRUPTED, BROKEN_PIPE = 130, 141  # what a shell reports for SIGINT and SIGPIPE
DEBUG = re.compile(r"(^|\s)-{0,2}debug(\s*=\s*true)?,?(\s|$)", re.IGNORECASE)


def say(text: str, end: str = "\n") -> None:
    """Print a text in which names from files may stand."""
    print(for_terminal(text), end=end)


def fail(message: str, code: int, arguments: Sequence[str]) -> int:
    """Print what is wrong (with the traceback above it if asked for) and return the exit code."""
    if DEBUG.search(" ".join(arguments)):
        traceback.print_exc()
    line = for_terminal(message.rstrip())
    print(f"\033[31merror:\033[0m {line}" if _in_colour() else f"error: {line}", file=sys.stderr)
    return code


def on_interrupt(number: int, frame: object) -> None:
    """Raise KeyboardInterrupt as usual.

    But a half imported torch goes wrong in odd ways, so end at once there.
    """
    if getattr(getattr(sys.modules.get("torch"), "__spec__", None), "_initializing", False):
        os.write(2, b"stopped\n")
        os._exit(INTERRUPTED)
    raise KeyboardInterrupt


def _in_colour() -> bool:
    return sys.stderr.isatty() and "NO_COLOR" not in os.environ


class _CleanFormatter(logging.Formatter):
    """Shows control characters in names from files, and does not send them."""

    def format(self, record: logging.LogRecord) -> str:
        return for_terminal(super().format(record))


class _Stderr(logging.Handler):
    """Writes to what `sys.stderr` is at the moment, which a program may replace."""

    def emit(self, record: logging.LogRecord) -> None:
        print(self.format(record), file=sys.stderr)


def log_to_stderr() -> None:
    """Print the remarks of the package, once, as plain lines."""
    log = logging.getLogger("rfla")
    if not log.handlers:
        handler = _Stderr()
        handler.setFormatter(_CleanFormatter("%(message)s"))
        log.addHandler(handler)


def survive_any_terminal() -> None:
    """Write what a terminal cannot show (a Latin-1 console, a broken file name) as an escape."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")

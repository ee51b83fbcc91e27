"""How the command prints and ends: text of files made harmless, one-line errors, signals."""

import logging
import os
import re
import sys
import traceback
from collections.abc import Sequence
from contextlib import suppress

from rfla.errors import for_terminal

INTERRUPTED, BROKEN_PIPE = 130, 141  # what a shell reports for SIGINT and SIGPIPE
DEBUG = re.compile(r"(^|\s)-{0,2}debug(\s*=\s*true)?,?(\s|$)", re.IGNORECASE)


def say(text: str, end: str = "\n") -> None:
    """Print a text in which names from files may stand."""
    print(for_terminal(text), end=end)


def fail(message: str, code: int, arguments: Sequence[str]) -> int:
    """Print what is wrong (with the traceback above it if asked for) and return the exit code."""
    if DEBUG.search(" ".join(arguments)):
        complain(traceback.format_exc().rstrip())
    line = for_terminal(message.rstrip())
    complain(f"\033[31merror:\033[0m {line}" if _in_colour() else f"error: {line}")
    return code


def complain(text: str) -> None:
    """Print to standard error, or nowhere: where that is full or closed, the exit code is left."""
    with suppress(OSError):
        print(text, file=sys.stderr)


def in_words(error: OSError) -> str:
    """Return what the operating system refused, and where, of an error that may not say where."""
    file = error.filename2 or error.filename  # of a copy, what it could not write
    reason = error.strerror or str(error)
    if isinstance(error, FileNotFoundError) and _starts_nowhere(str(file or "")):
        return "the current directory no longer exists"
    if file:
        return f"{file}: {reason}"
    return f"standard output: {reason}" if _is_of_stdout(error) else reason


def _starts_nowhere(path: str) -> bool:
    """Whether a path begins in a working directory that was removed."""
    try:
        os.getcwd()
    except FileNotFoundError:
        return not os.path.isabs(path)
    return False


def _is_of_stdout(error: OSError) -> bool:
    """Whether standard output gave this error: it gives it for an empty line too."""
    try:
        print(flush=True)
    except OSError as again:
        return again.errno == error.errno
    return False


def end_quietly() -> int:
    """Send the rest of the output nowhere, as its reader has gone, and return the exit code."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return BROKEN_PIPE


def leave(code: int) -> None:
    """End this process at once."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):  # a terminal that has gone
            stream.flush()
    os._exit(code)


def on_interrupt(number: int, frame: object) -> None:
    """Raise KeyboardInterrupt; end the process at once while torch is being imported.

    A half imported torch fails in odd ways.
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
        complain(self.format(record))


def log_to_stderr() -> None:
    """Print the remarks of the package, once, as plain lines."""
    log = logging.getLogger("rfla")
    if not log.handlers:
        handler = _Stderr()
        handler.setFormatter(_CleanFormatter("%(message)s"))
        log.addHandler(handler)


def survive_any_terminal() -> None:
    """Write what a terminal cannot show (a Latin-1 console, a broken file name) as an escape.

    What is written to an output that was closed goes nowhere.
    """
    _open_closed_streams()
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def _open_closed_streams() -> None:
    """Replace the standard streams that were closed (`>&-`), of which Python makes None.

    In this order each takes the number of the closed one, which the next file would have else: and
    the libraries that print to 1 or 2 would write into that file.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115  for good

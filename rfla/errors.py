"""Errors that speak to the user at the keyboard: one line, no traceback, exit code 2.

Everything that can go wrong because of what somebody typed or stored raises an `RflaError`; the
command line prints its text as one line. Any other exception is a defect of this package and keeps
its traceback.
"""

import difflib
from collections.abc import Iterable
from importlib import import_module
from itertools import islice
from typing import Any

MAX_LINE = 1000  # letters of a line on the terminal
MAX_NAME = 200  # letters of the name of a class
MAX_REASON = 200  # letters of what another library says


class RflaError(Exception):
    """What is wrong, where, what is allowed, and the nearest match, in one line."""

    exit_code = 2


class ConfigError(RflaError):
    """A key, a value or a YAML file of the configuration."""


class DataError(RflaError):
    """A data set, an annotation file or an image."""


class WeightsError(RflaError):
    """A weights or training-state file."""


class MetricError(RflaError):
    """Ground truth or detections that cannot be evaluated."""


class ExistingRunError(RflaError):
    """A run directory that is in use or cannot be written."""


def printable(text: str, keep: str = "\n\t") -> str:
    """Return a text that is safe to print: control characters escaped. For names from files.

    Control characters, escape sequences, marks that change the direction of writing and halves of
    surrogate pairs become escapes as Python writes them; what is in `keep` stays.
    """
    if text.isprintable():
        return text
    return "".join(
        letter if letter.isprintable() or letter in keep else ascii(letter)[1:-1] for letter in text
    )


def for_terminal(text: str) -> str:
    """Return a text as `printable`, in lines that a screen holds: long ones lose their middle."""
    return "\n".join(_bearable(line) for line in printable(text).split("\n"))


def _bearable(line: str) -> str:
    return line if len(line) <= MAX_LINE else f"{line[: MAX_LINE // 2]} [...] {line[-200:]}"


def require_short_name(name: str, where: str) -> None:
    """Refuse the name of a class that no table, picture or message can show.

    Raises:
        DataError: It is longer than `MAX_NAME`.
    """
    if len(name) > MAX_NAME:
        raise DataError(
            f"{where}: a class name of {len(name):,} letters, {name[:20]!r}...; at most {MAX_NAME}"
        )


def nearest(word: object, options: Iterable[str], count: int = 3) -> list[str]:
    """Return up to `count` of `options` that look like `word`, best first.

    Of thousands the first are compared, and of a text of thousands of letters none.
    """
    word = str(word)
    if len(word) > MAX_NAME:
        return []
    return difflib.get_close_matches(word, list(islice(options, 2000)), n=count, cutoff=0.6)


def did_you_mean(word: object, options: Iterable[str]) -> str:
    """Return `"; did you mean 'x'?"` for the nearest option, or an empty string."""
    matches = nearest(word, options, count=1)
    return f"; did you mean '{matches[0]}'?" if matches else ""


def one_line(error: BaseException | str) -> str:
    """Return what another library says of an error, or the class of one that says nothing."""
    said = " ".join(str(error).split())[:MAX_REASON]
    return said or ("" if isinstance(error, str) else type(error).__name__)


def lacks_memory(error: Exception) -> bool:
    """Whether there was no memory: for data, or for a library that was to be loaded."""
    words = ("failed to map segment", "annot allocate memory")
    at_loading = isinstance(error, ImportError) and any(word in str(error) for word in words)
    return at_loading or isinstance(error, MemoryError)


def extra_needed(extra: str) -> str:
    """How the libraries of an extra are installed; rfla is on no package index."""
    return f"in the clone of rfla: pip install '.[{extra}]'"


def installed(library: str, advice: str) -> Any:
    """Import a library that only some people need.

    Raises:
        ConfigError: It is not installed; with the advice.
    """
    try:
        return import_module(library)
    except ImportError:
        raise ConfigError(f"{library} is not installed; {advice}") from None


def counted(number: int, noun: str, plural: str | None = None) -> str:
    """Return `"1 image"` or `"2,000 images"`; `plural` is given where it is not noun and s."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def shorten(value: object) -> str:
    """Return what was found, in a length that fits a line."""
    try:
        text = repr(value)
    except ValueError:  # an integer of thousands of digits
        return "a huge number"
    return text if len(text) <= 60 else text[:57] + "..."

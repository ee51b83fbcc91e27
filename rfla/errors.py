"""Errors that speak to the person at the keyboard: one line, no traceback, exit code 2.

Everything that can go wrong because of what somebody typed or stored raises an `RflaError`; the
command line prints its text as one line. Any other exception is a defect of this package and keeps
its traceback.
"""

import difflib
from collections.abc import Iterable


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
    """Return a text that a terminal shows and does not obey, for names that come from files.

    Control characters, escape sequences, marks that change the direction of writing and halves of
    surrogate pairs become escapes as Python writes them; what is in `keep` stays.
    """
    if text.isprintable():
        return text
    return "".join(
        letter if letter.isprintable() or letter in keep else ascii(letter)[1:-1] for letter in text
    )


def nearest(word: str, options: Iterable[str], count: int = 3) -> list[str]:
    """Return up to `count` of `options` that look like `word`, best first."""
    return difflib.get_close_matches(word, list(options), n=count, cutoff=0.6)


def did_you_mean(word: str, options: Iterable[str]) -> str:
    """Return `"; did you mean 'x'?"` for the nearest option, or an empty string."""
    matches = nearest(word, options, count=1)
    return f"; did you mean '{matches[0]}'?" if matches else ""


def shorten(value: object) -> str:
    """Return what was found, in a length that fits a line."""
    try:
        text = repr(value)
    except ValueError:  # an integer of thousands of digits
        return "a huge number"
    return text if len(text) <= 60 else text[:57] + "..."

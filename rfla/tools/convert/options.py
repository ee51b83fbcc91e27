"""`rfla convert key=value ...`: texts of the command line -> `convert` or `build_aitod`, and the summary printed."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rfla.data.formats import FORMATS
from rfla.data.formats.record import read_text
from rfla.errors import ConfigError, did_you_mean

AITOD = "aitod-xview"
KINDS = {
    **dict.fromkeys(("format", "source", "out", "to", "split", "names", "annotations"), str),
    **dict.fromkeys(("xview", "wo_xview", "channel_order"), str),
    **dict.fromkeys(("tile", "overlap", "workers"), int),
    **dict.fromkeys(("keep_visible", "empty_tiles"), float),
    "exist_ok": bool,
}
OF_AITOD = frozenset(
    {"format", "annotations", "xview", "wo_xview", "out", "channel_order", "workers"}
)
OF_OTHERS = frozenset(KINDS) - {"xview", "wo_xview", "channel_order"}


def run_convert(options: Mapping[str, str]) -> int:
    """Run `rfla convert` and print what was done.

    Args:
        options: The `key=value` tokens as texts; keys as in `KINDS`.

    Returns:
        Exit code: 0, or 1 where an AI-TOD build misses images.

    Raises:
        ConfigError: An unknown key, a value of the wrong kind, a key that is missing.
        DataError: What cannot be converted, with file and line.
    """
    values = _typed(options)
    name = values.get("format")
    if name is None:
        raise ConfigError(f"convert needs format=; formats are {', '.join([*FORMATS, AITOD])}")
    if name == AITOD:
        return _run_aitod(values)
    _require(values, OF_OTHERS, ("source", "out"), name)
    from rfla.tools.convert import convert

    if "names" in values:
        values["names"] = _names(values["names"])
    report = convert(**values, progress=True)
    print(report.table())
    return 0


def _run_aitod(values: dict[str, Any]) -> int:
    _require(values, OF_AITOD, ("annotations", "out"), AITOD)
    from rfla.tools.aitod import build_aitod

    del values["format"]
    report = build_aitod(**values, progress=True)
    print(report.table())
    return 0 if report.complete else 1


def _require(
    values: Mapping[str, Any], allowed: frozenset[str], needed: tuple[str, ...], name: str
) -> None:
    for key in values:
        if key not in allowed:
            raise ConfigError(
                f"{key}=: does not go with format={name}; its keys are {', '.join(sorted(allowed))}"
            )
    for key in needed:
        if key not in values:
            raise ConfigError(f"convert format={name} needs {key}=")


def _typed(options: Mapping[str, str]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for key, text in options.items():
        if key not in KINDS:
            raise ConfigError(
                f"unknown key '{key}' of convert{did_you_mean(key, KINDS)}; keys are {', '.join(KINDS)}"
            )
        text = str(text).strip()
        if not text:
            raise ConfigError(f"{key}= is empty")
        values[key] = _value(key, text, KINDS[key])
    return values


def _value(key: str, text: str, kind: type) -> Any:
    if kind is bool:
        words = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
        if text.lower() in words:
            return words[text.lower()]
        raise ConfigError(f"{key}={text}: must be true or false")
    try:
        return kind(text)
    except ValueError:
        what = "a whole number" if kind is int else "a number"
        raise ConfigError(f"{key}={text}: must be {what}") from None


def _names(text: str) -> list[str]:
    """Return class names from `a,b,c`, `[a, b]`, or a text file with one name in each line."""
    path = Path(text).expanduser()
    if path.is_file():
        return [line.strip() for line in read_text(path).splitlines() if line.strip()]
    return [name.strip().strip("'\"") for name in text.strip("[]").split(",") if name.strip()]

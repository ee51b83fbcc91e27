"""`rfla convert`: which conversion runs, and which keys go with it."""

from rfla.cfg.verbs import ConvertOptions
from rfla.data.formats import FORMATS
from rfla.data.image_header import set_max_pixels
from rfla.errors import ConfigError, did_you_mean, for_terminal
from rfla.tools.aitod import build_aitod
from rfla.tools.convert.conversion import convert

AITOD = "aitod-xview"
_AITOD_ALONE = frozenset({"xview", "wo_xview", "channel_order"})
_AITOD_KEYS = _AITOD_ALONE | {"format", "annotations", "out", "workers", "max_pixels", "debug"}


def run_convert(options: ConvertOptions) -> int:
    """Run `rfla convert` and print what was done.

    Returns:
        Exit code: 0, or 1 where an AI-TOD build misses images.

    Raises:
        ConfigError: A key that is missing or does not go with the others.
        DataError: What cannot be converted, with file and line.
    """
    known = [*FORMATS, AITOD]
    if options.format not in known:
        hint = did_you_mean(options.format or "", known)
        raise ConfigError(f"format={options.format}: formats are {', '.join(known)}{hint}")
    if options.format == AITOD:
        return _build_aitod(options)
    _refuse_keys(options, _AITOD_ALONE)
    _require(options, "source", "out")
    print(for_terminal(convert(options, progress=True).table()))
    return 0


def _build_aitod(options: ConvertOptions) -> int:
    set_max_pixels(options.max_pixels)
    _refuse_keys(options, frozenset(ConvertOptions.model_fields) - _AITOD_KEYS)
    _require(options, "annotations", "out")
    report = build_aitod(
        options.annotations or "",
        options.xview,
        options.wo_xview,
        options.out or "",
        options.channel_order,
        options.workers,
        progress=True,
    )
    print(for_terminal(report.table()))
    return 0 if report.complete else 1


def _refuse_keys(options: ConvertOptions, others: frozenset[str]) -> None:
    """Refuse keys that were given and mean nothing for this format."""
    for key in sorted(options.model_fields_set & others):
        allowed = sorted(frozenset(ConvertOptions.model_fields) - others)
        raise ConfigError(
            f"{key}=: does not go with format={options.format}; its keys are {', '.join(allowed)}"
        )


def _require(options: ConvertOptions, *keys: str) -> None:
    for key in keys:
        if not getattr(options, key):
            raise ConfigError(f"convert format={options.format} needs {key}=")

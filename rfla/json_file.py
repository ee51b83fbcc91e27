"""JSON files of strangers: fast, in bounded memory, and every mistake is one line.

The parser is msgspec, several times as fast as `json` where it is told which keys are wanted. What
it refuses is read again by `json`, which knows NaN and says in which line a mistake is.
"""

import gc
import json
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from rfla.errors import DataError, RflaError
from rfla.files import read_regular

MAX_UNPACKED = 4 << 30  # bytes that a .json.gz may become
_GZIP = b"\x1f\x8b"


def read_json(path: Path) -> Any:
    """Read a JSON file, gzip included.

    Args:
        path: The file; links are followed.

    Raises:
        DataError: As in `parse_json`, or the file cannot be read.
    """
    return parse_json(read_json_bytes(path), str(path))


def read_json_bytes(path: Path, error: type[RflaError] = DataError) -> bytes:
    """Return the text of a JSON file in UTF-8, unpacked and without a byte order mark.

    Raises:
        RflaError: Of the class `error`: no regular file, damaged gzip, or far too large.
    """
    data = read_regular(path, error)
    if data.startswith(_GZIP):
        data = _unpack(data, path, error)
    elif path.suffix.lower() == ".gz":
        raise error(f"{path}: cannot be read (not a gzip file)")
    return data.removeprefix(b"\xef\xbb\xbf")


def parse_json(
    data: bytes,
    where: str,
    kind: Any = Any,
    error: type[RflaError] = DataError,
    what: str = "",
) -> Any:
    """Parse JSON.

    Args:
        data: The text in UTF-8.
        where: The file, for messages.
        kind: `Any`, or a type with the wanted keys (a `msgspec.Struct`): all others are passed
            over.
        error: Class of the error to raise.
        what: What a file of that `kind` is called, for messages.

    Raises:
        RflaError: Of the class `error`: no JSON (with the line), nested too deep, a number of
            thousands of digits, half of a surrogate pair, or not of that `kind`.
    """
    try:
        with collector_at_rest():
            return msgspec.json.decode(data, type=kind)
    except MemoryError:
        raise error(f"{where}: too large for the memory of this machine") from None
    except (ValueError, RecursionError):
        return convert_json(_parse_slowly(data, where, error), where, kind, error, what)


def convert_json(
    content: Any,
    where: str,
    kind: Any = Any,
    error: type[RflaError] = DataError,
    what: str = "",
) -> Any:
    """Take the wanted keys of content that is in memory already.

    Raises:
        RflaError: Of the class `error`: not of that `kind`.
    """
    try:
        return msgspec.convert(content, kind)
    except (msgspec.ValidationError, RecursionError) as failure:
        wrong = _in_words(failure)
        text = f"not {what} ({wrong})" if what else wrong
        raise error(f"{where}: {text}") from None


def refuse_repeated_keys(data: bytes, where: str, error: type[RflaError] = DataError) -> None:
    """Refuse an object that has a key twice, of which a parser would silently take the last.

    Raises:
        RflaError: Of the class `error`, with the key.
    """

    def once(pairs: list[tuple[str, Any]]) -> None:
        keys = Counter(key for key, _ in pairs)
        if len(keys) < len(pairs):
            raise error(f"{where}: an object has the key {keys.most_common(1)[0][0]!r:.60} twice")

    _parse_slowly(data, where, error, once)


@contextmanager
def collector_at_rest() -> Iterator[None]:
    """Keep the garbage collector from looking through a million new objects again and again."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()


def _parse_slowly(
    data: bytes,
    where: str,
    error: type[RflaError],
    of_pairs: Callable[[list[tuple[str, Any]]], Any] | None = None,
) -> Any:
    """Parse with Python's own parser, which takes NaN and names the line of a mistake."""
    try:
        plain = json.loads(data, object_pairs_hook=of_pairs)
        msgspec.json.encode(plain)  # fails for half of a surrogate pair, which no file can hold
    except json.JSONDecodeError as failure:
        raise error(f"{where}:{failure.lineno}: not valid JSON ({failure.msg})") from None
    except UnicodeEncodeError:
        raise error(f"{where}: not usable JSON (a text with half of a surrogate pair)") from None
    except RecursionError:
        raise error(f"{where}: not usable JSON (nested too deep)") from None
    except (ValueError, OverflowError) as failure:
        reason = str(failure).partition(";")[0]
        raise error(f"{where}: not usable JSON ({reason})") from None
    return plain


def _in_words(failure: Exception) -> str:
    """Return msgspec's message: ``Expected `array`, got `int` - at `$.images` `` -> plain words."""
    text, _, place = str(failure).replace("`", "").replace(" | null", "").partition(" - at $")
    text = text[:1].lower() + text[1:]
    return f"{place.lstrip('.')}: {text}" if place else text


def _unpack(data: bytes, path: Path, error: type[RflaError]) -> bytes:
    unpacker = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)
    try:
        unpacked = unpacker.decompress(data, MAX_UNPACKED)
    except zlib.error as failure:
        raise error(f"{path}: cannot be read ({failure})") from None
    except MemoryError:
        raise error(f"{path}: too large for the memory of this machine") from None
    if unpacker.unconsumed_tail:
        raise error(f"{path}: unpacks to more than {MAX_UNPACKED >> 30} GiB")
    if not unpacker.eof:
        raise error(f"{path}: cannot be read (the end of the gzip file is missing)")
    return unpacked

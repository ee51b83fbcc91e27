"""Read the JSON metadata of one of our .safetensors files without torch.

Only the header is read, in bounds, and nothing in it is trusted.

The format is public: 8 bytes little-endian length, then a JSON header whose `__metadata__` maps
text to text (https://huggingface.co/docs/safetensors). Ours keeps one entry, `rfla`, that is JSON
again.
"""

import json
import os
from pathlib import Path
from typing import Any

from rfla.errors import WeightsError

KEY = "rfla"  # of our entry in `__metadata__`
MAX_HEADER_BYTES = 8 * 1024 * 1024


def read_metadata(path: Path | str) -> dict[str, Any]:
    """Return the metadata that `rfla` wrote into a weights file.

    Raises:
        WeightsError: no such file, not safetensors, an absurd header, or no metadata of ours.
    """
    path = Path(path)
    header = _parse(_read_header(path), path, "its header")
    entry = header.get("__metadata__")
    text = entry.get(KEY) if isinstance(entry, dict) else None
    if not isinstance(text, str):
        raise WeightsError(
            f"{path}: safetensors without the metadata of rfla; official weights come in by "
            "'rfla import weights=official.pth model=...'"
        )
    return _parse(text.encode("utf-8", "surrogatepass"), path, "its metadata")


def _read_header(path: Path) -> bytes:
    try:
        if not path.is_file():
            raise WeightsError(
                f"{path}: {'is not a regular file' if path.exists() else 'no such file'}"
            )
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            room = os.fstat(file.fileno()).st_size - 8
            if room < 2 or not 2 <= length <= room:
                raise WeightsError(
                    f"{path}: not a safetensors file, or cut off (header of {length} bytes)"
                )
            if length > MAX_HEADER_BYTES:
                raise WeightsError(
                    f"{path}: its header claims {length} bytes; at most {MAX_HEADER_BYTES} are read"
                )
            return file.read(length)
    except (OSError, ValueError) as error:
        raise WeightsError(
            f"{path}: cannot be read ({getattr(error, 'strerror', None) or error})"
        ) from error


def _parse(content: bytes, path: Path, what: str) -> dict[str, Any]:
    try:
        value = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise WeightsError(f"{path}: {what} is not JSON") from error
    if not isinstance(value, dict):
        raise WeightsError(f"{path}: {what} is not a JSON object")
    return value

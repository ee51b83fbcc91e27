"""Read the JSON metadata of one of our files (.safetensors, .onnx) without torch.

Only the header is read, in bounds, and nothing in it is trusted.

The format is public: 8 bytes little-endian length, then a JSON header whose `__metadata__` maps
text to text (https://huggingface.co/docs/safetensors). Ours keeps two entries: `rfla`, which is
JSON again, and `sha256`, the digest of that text and of the tensors (`rfla.models.weights` checks
it; files from before it have none).
"""

import json
import os
from pathlib import Path
from typing import Any, NamedTuple

from rfla.cfg import onnx_header
from rfla.errors import WeightsError
from rfla.files import foreign_content, open_regular

KEY, DIGEST = "rfla", "sha256"  # of our entries in `__metadata__`
MAX_HEADER_BYTES = 8 * 1024 * 1024
MAX_TENSORS = 20_000  # a DetectoRS has 1,500


class Header(NamedTuple):
    """What a weights file says of itself.

    Attributes:
        metadata: what `rfla` wrote.
        text: the same, as it stands in the file.
        digest: of the text and the tensors, in hexadecimal digits; None in an older file.
    """

    metadata: dict[str, Any]
    text: str
    digest: str | None


def read_metadata(path: Path | str) -> dict[str, Any]:
    """Return the metadata that `rfla` wrote into a weights file or an exported network.

    Raises:
        WeightsError: no such file, not of its kind, an absurd header, or no metadata of ours.
    """
    if is_exported(str(path)):
        text = onnx_header.read_entries(path).get(KEY)
        if text is None and not Path(path).stat().st_size:
            raise WeightsError(f"{path}: an empty file")
        if text is None:
            raise WeightsError(f"{path}: a network that rfla did not export; it is not run")
        return _parse(text.encode("utf-8", "surrogatepass"), Path(path), "its metadata")
    return read_header(path).metadata


def is_weights(model: object) -> bool:
    """Whether `model=` names a weights file."""
    return isinstance(model, str) and Path(model).suffix.lower() == ".safetensors"


def is_exported(model: object) -> bool:
    """Whether `model=` names a network that onnxruntime runs."""
    return isinstance(model, str) and Path(model).suffix.lower() == ".onnx"


def read_header(path: Path | str) -> Header:
    """Return the metadata that `rfla` wrote into a weights file, and the digest beside it.

    Raises:
        WeightsError: as `read_metadata`.
    """
    path = Path(path)
    header = _parse(_header_bytes(path), path, "its header")
    if len(header) > MAX_TENSORS:
        raise WeightsError(
            f"{path}: {len(header):,} tensors; no weights file has over {MAX_TENSORS}"
        )
    entries = header.get("__metadata__")
    if not isinstance(entries, dict) or not isinstance(text := entries.get(KEY), str):
        if path.name.endswith(".state.safetensors"):
            raise WeightsError(
                f"{path}: the state of a training, for resume=; the weights are "
                "best.safetensors and last.safetensors beside it"
            )
        raise WeightsError(
            f"{path}: safetensors without the metadata of rfla; official weights come in by "
            "'rfla import weights=official.pth model=...'"
        )
    digest = entries.get(DIGEST)
    if entries.keys() - {KEY, DIGEST} or not isinstance(digest, str | None):
        raise WeightsError(f"{path}: damaged weights file: unknown entries in its header")
    metadata = _parse(text.encode("utf-8", "surrogatepass"), path, "its metadata")
    return Header(metadata, text, digest)


def _header_bytes(path: Path) -> bytes:
    with open_regular(path, WeightsError) as file:
        try:
            head = file.read(1024)
            size = os.fstat(file.fileno()).st_size
            length = int.from_bytes(head[:8], "little")
            if size < 10 or not 2 <= length <= size - 8:
                raise WeightsError(f"{path}: not a safetensors file{_what_else(head, length)}")
            if length > MAX_HEADER_BYTES:
                raise WeightsError(
                    f"{path}: its header claims {length} bytes; at most {MAX_HEADER_BYTES} are read"
                )
            file.seek(8)
            return file.read(length)
        except OSError as error:
            raise WeightsError(f"{path}: cannot be read ({error.strerror or error})") from error


def _what_else(head: bytes, length: int) -> str:
    """Say what stands in the place of a weights file."""
    if head.startswith(b"PK"):
        return " but a zip archive; a checkpoint (.pth) comes in by 'rfla import weights=...'"
    foreign = foreign_content(head)
    return f" but {foreign}" if foreign else f", or cut off (header of {length} bytes)"


def _parse(content: bytes, path: Path, what: str) -> dict[str, Any]:
    try:
        value = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise WeightsError(f"{path}: {what} is not JSON") from error
    if not isinstance(value, dict):
        raise WeightsError(f"{path}: {what} is not a JSON object")
    return value

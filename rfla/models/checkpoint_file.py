"""Open somebody else's `.pth` file: a zip archive of tensors and plain values, nothing that runs.

The archive's directory is checked, then the pickle in it (`pickle_check.py`), and only then does
torch read it, with its restricted unpickler and with inert stand-ins for what numpy would build.
"""

import pickle
import re
import warnings
import zipfile
from pathlib import Path, PurePosixPath
from typing import Any, Self

import torch

from rfla.errors import WeightsError, one_line, printable
from rfla.files import foreign_content, open_regular
from rfla.models.pickle_check import STAND_INS, check_pickle

MAX_CHECKPOINT_BYTES = 8 * 1024**3
MAX_PICKLE_BYTES = 64 * 1024**2
MAX_RECORDS = 100_000
SAFE_TORCH = (2, 10)  # before it, CVE-2026-24747: a file could corrupt the unpickler's memory
END_OF_DIRECTORY = b"PK\x05\x06"  # of a zip archive, 22 bytes from its end where no comment follows
YOLO = re.compile(r"asks for (?:ultralytics|models\.(?:yolo|common))\b")


class StandIn:
    """What is built in the place of a numpy object: nothing."""

    def __new__(cls, *_: object) -> Self:
        """Take any values and keep none."""
        return super().__new__(cls)

    def __setstate__(self, _: object) -> None:
        """Keep no state."""


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """Read a checkpoint: tensors and plain values by name, on the CPU.

    Raises:
        WeightsError: missing, too large, no zip archive of torch's, damaged, it holds what a
            checkpoint does not, or torch is older than 2.10.
    """
    path = Path(path)
    release = tuple(int(part) for part in re.findall(r"\d+", torch.__version__)[:2])
    if release < SAFE_TORCH:
        raise WeightsError(
            f"{path}: not opened, since torch {torch.__version__} has CVE-2026-24747 in its reader "
            "of .pth files; rfla import needs torch 2.10: pip install -U torch torchvision"
        )
    try:
        _check_archive(path)
        stand_ins: list[Any] = [(StandIn, name) for name in STAND_INS]
        with torch.serialization.safe_globals(stand_ins), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            checkpoint: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except WeightsError:
        raise
    except pickle.UnpicklingError:
        raise WeightsError(f"{path}: refused by torch, nothing in it was run") from None
    except Exception as error:  # whatever the readers of zip and tensors stumble over
        reason = one_line(error)
        raise WeightsError(f"{path}: not a readable checkpoint: {reason}") from None
    return checkpoint


def _check_archive(path: Path) -> None:
    """Refuse what is no archive of `torch.save`, or holds what a checkpoint does not."""
    with open_regular(path, WeightsError) as file:
        head = file.read(1024)
        size = file.seek(0, 2)
        if size > MAX_CHECKPOINT_BYTES:
            raise WeightsError(f"{path}: larger than {MAX_CHECKPOINT_BYTES >> 30} GiB")
        file.seek(max(0, size - 22))
        if not head.startswith(b"PK") or not file.read(4) == END_OF_DIRECTORY:
            raise WeightsError(f"{path}: {_not_an_archive(head)}")
        with zipfile.ZipFile(file) as archive:
            entries = archive.infolist()
            top = _check_entries(entries, size, path)
            stored = {
                entry.filename.removeprefix(f"{top}/data/"): entry.file_size
                for entry in entries
                if entry.filename.startswith(f"{top}/data/")
            }
            if not any(entry.CRC for entry in entries):  # torch can be told to write none
                for entry in entries:
                    del entry.CRC
            content = archive.read(f"{top}/data.pkl")
            if damaged := archive.testzip():  # torch reads past a wrong checksum
                raise WeightsError(f"{path}: damaged (checksum of {printable(damaged)})")
    try:
        check_pickle(content, stored)
    except WeightsError as error:
        reason = str(error)[:300]
        if YOLO.search(reason):
            reason += "; these are weights of a YOLO, another network than any here"
        raise WeightsError(f"{path}: refused, nothing in it was run: {reason}") from None


def _check_entries(entries: list[zipfile.ZipInfo], size: int, path: Path) -> str:
    """Return the directory that all records stand in.

    Two readers could understand an unusual archive in two ways, so that torch would read another
    pickle than the one that was checked: names differ, and no record overlaps another.
    """
    names = [entry.filename for entry in entries]
    tops = {PurePosixPath(name).parts[0] for name in names if name}
    top = tops.pop() if len(tops) == 1 else ""
    if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
        raise WeightsError(f"{path}: a compressed archive; torch writes checkpoints uncompressed")
    if f"{top}/data.pkl" not in names:
        raise WeightsError(f"{path}: a zip archive, but not one that torch.save wrote")
    if len(names) > MAX_RECORDS or len({name.casefold() for name in names}) != len(names):
        raise WeightsError(f"{path}: an archive of too many records, or of two with one name")
    places = sorted((entry.header_offset, entry.file_size) for entry in entries)
    ends = [start + length for start, length in places]
    starts = [start for start, _ in places[1:]] + [size]
    if any(end > start for end, start in zip(ends, starts, strict=True)):
        raise WeightsError(f"{path}: an archive whose records overlap")
    if next(e for e in entries if e.filename == f"{top}/data.pkl").file_size > MAX_PICKLE_BYTES:
        raise WeightsError(f"{path}: a pickle of more than {MAX_PICKLE_BYTES >> 20} MiB")
    return top


def _not_an_archive(head: bytes) -> str:
    """Say what a file that is no zip archive is."""
    foreign = foreign_content(head)
    if foreign is not None:
        return f"not a checkpoint but {foreign}"
    if head.startswith(b"\x80"):
        return (
            "a checkpoint in the old format of torch (before 1.6), which is not opened; whoever "
            "trusts it can write it again with torch.save"
        )
    if head[257:262] == b"ustar":
        return "a tar archive; checkpoints are zip archives since torch 1.6"
    if head[8:9] == b"{":
        return "a .safetensors file, which needs no import: give it as model="
    return "not a readable checkpoint: no zip archive, or a part of one"

"""Files that are either whole or not there: written beside, flushed, then renamed over the old one."""

import os
import tempfile
from pathlib import Path


def write_atomically(path: str | Path, data: bytes | str, flush: bool = True) -> None:
    """Replace `path` by a file that holds `data`.

    A crash, a kill or a full disk at any moment leaves the previous file as it was; so does a power
    cut with `flush`, which waits for the disk. Pictures, which can be drawn again, go without:
    there are thousands.

    Raises:
        OSError: The file cannot be written; nothing is left behind.
    """
    target = Path(path)
    content = data.encode() if isinstance(data, str) else data
    try:
        _write_beside(target, content, flush)
    except OSError as error:
        if error.errno:  # a full disk does not say which file, and nobody knows the one beside
            error.filename, error.filename2 = str(target), None
        raise
    if flush:
        _flush_directory(target.parent)


def _write_beside(target: Path, content: bytes, flush: bool) -> None:
    """Write a new file in the directory of `target`, and rename it over the old one."""
    handle, beside = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            if flush:
                file.flush()
                os.fsync(file.fileno())
        os.chmod(beside, 0o666 & ~_umask())
        os.replace(beside, target)
    except BaseException:
        Path(beside).unlink(missing_ok=True)
        raise


def _umask() -> int:
    """Return the process's umask (mkstemp ignores it and makes private files)."""
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _flush_directory(directory: Path) -> None:
    """Make the rename itself survive a power cut, where the system lets a directory be flushed."""
    if os.name != "posix":
        return
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)

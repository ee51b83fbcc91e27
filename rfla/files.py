"""Files that are whole or not there, and files that are read only if they are files.

Written beside, flushed, then renamed over the old one.
"""

import os
import re
import secrets
import stat
import weakref
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import IO, Any, BinaryIO

from rfla.errors import DataError, RflaError

_HALF_WRITTEN = re.compile(r"\..+\.[0-9a-f]{8}")


def home_expanded(path: str | Path) -> Path:
    """Return a path with a leading `~` or `~name` replaced, or as it is where nobody has that name.

    `Path.expanduser` would raise a RuntimeError for such a name.
    """
    return Path(os.path.expanduser(path))


def as_unicode(name: str) -> str:
    """Return the name of a file as a text that files can hold, and JSON readers take.

    Some file systems take any bytes, which Python reads as halves of surrogate pairs.
    """
    return name.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def for_opencv(path: str | Path) -> Any:
    """Return the name of a file as OpenCV opens it: text ends the process if it is not Unicode."""
    return os.fsencode(path)


def half_written(directory: Path) -> Iterator[Path]:
    """Yield what writers that were killed left below a directory."""
    for folder, _, names in os.walk(directory):
        for name in names:
            if _HALF_WRITTEN.fullmatch(name):
                yield Path(folder) / name


def write_atomically(
    path: str | Path, data: bytes | str | Iterable[str], flush: bool = True
) -> None:
    """Replace `path` by a file that holds `data`: the whole, or parts of a long text in order.

    A crash, a kill or a full disk at any moment leaves the previous file as it was; so does a power
    cut with `flush`, which waits for the disk. Pictures, which can be drawn again, go without:
    there are thousands.

    Raises:
        OSError: The file cannot be written; nothing is left behind.
    """
    target = Path(path)
    parts = [data] if isinstance(data, bytes | str) else data
    try:
        _write_beside(target, parts, flush)
    except OSError as error:
        if error.errno:  # a full disk does not say which file, and nobody knows the one beside
            error.filename, error.filename2 = str(target), None
        raise
    if flush:
        _flush_directory(target.parent)


def _write_beside(target: Path, parts: Iterable[bytes | str], flush: bool) -> None:
    """Write a new file in the directory of `target`, and rename it over the old one."""
    beside = target.with_name(f".{target.name}.{secrets.token_hex(4)}")  # as `half_written` knows
    file = open(beside, "xb")  # noqa: SIM115  closed below
    try:
        with file:
            for part in parts:
                file.write(part.encode() if isinstance(part, str) else part)
            if flush:
                file.flush()
                os.fsync(file.fileno())
        os.replace(beside, target)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise


@contextmanager
def refused_in_one_line(path: str | Path) -> Iterator[None]:
    """Turn what the system refuses while `path`, or a file below it, is written into one line.

    Raises:
        RflaError: Which file, and why.
    """
    try:
        yield
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        file = getattr(error, "filename", None) or path
        reason = getattr(error, "strerror", None) or error
        raise RflaError(f"{file}: cannot be written ({reason})") from error


def write_result(path: str | Path, data: bytes | str) -> None:
    """Write a file that a user named, with the directories above it.

    Raises:
        RflaError: Which file cannot be written, and why.
    """
    with refused_in_one_line(path):
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, data)


_held: "weakref.WeakSet[IO[str]]" = weakref.WeakSet()


def _let_go() -> None:
    """Loading processes must not hold the locks on: they outlive a killed run by seconds."""
    for handle in list(_held):
        handle.close()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_let_go)


def hold_lock(path: Path) -> IO[str]:
    """Hold a lock file for this process until the returned file is closed.

    Raises:
        BlockingIOError: Another process holds it.
        OSError: It cannot be written.
    """
    try:
        import fcntl
    except ImportError:  # Windows has no advisory locks
        return open(os.devnull, "w")
    while True:
        handle = open(path, "w")  # noqa: SIM115  the lock lives as long as the handle
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            handle.close()
            raise
        except OSError:  # a file system without locks
            return handle
        if path.exists() and os.path.samestat(os.fstat(handle.fileno()), path.stat()):
            _held.add(handle)
            return handle
        handle.close()  # its owner removed the file between our two calls: ask again


def release_lock(path: Path, handle: IO[str]) -> None:
    """Remove a lock file and let others hold it."""
    with suppress(OSError):  # the disk may have become read-only; what is locked is the open file
        path.unlink(missing_ok=True)  # while it is still held: nobody else owns this file
    handle.close()


def _flush_directory(directory: Path) -> None:
    """Make the rename itself survive a power cut, where the system lets a directory be flushed."""
    if os.name != "posix":
        return
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def unwritable(directory: str | Path) -> str:
    """Say why nothing can be written into a directory that may be still to be made; "" if it can.

    Asked before minutes of work, not in place of looking at what writing says.
    """
    place = Path(directory).absolute()
    # a link to nothing, or to itself, is in the way too
    nearest = next(path for path in (place, *place.parents) if os.path.lexists(path))
    if not nearest.is_dir():
        return f"{nearest} is no directory"
    if is_of_kernel(nearest) or not os.access(nearest, os.W_OK | os.X_OK):
        return f"{nearest} cannot be written to"
    return ""


def open_regular(path: str | Path, error: type[RflaError] = DataError) -> BinaryIO:
    """Open a file for reading; what is no regular file is refused before it is opened.

    A FIFO would wait for a writer, a device may never end, and files of /proc hang or hold what
    nobody meant.

    Args:
        path: The file; links are followed.
        error: Class of the error to raise.

    Raises:
        RflaError: Of the class `error`: no such file, no regular file, or no permission.
    """
    try:
        status = os.stat(path)
        if not stat.S_ISREG(status.st_mode):
            kind = _KINDS.get(stat.S_IFMT(status.st_mode), "no regular file")
            raise error(f"{path}: is {kind}; a file is needed")
        if status.st_dev in _kernel_devices():
            raise error(
                f"{path}: is a file of the kernel (/proc or /sys); a file on disk is needed"
            )
        return open(path, "rb")
    except FileNotFoundError:
        raise error(f"{path}: no such file") from None
    except (OSError, ValueError) as failure:  # ValueError: a NUL in the name
        reason = getattr(failure, "strerror", None) or failure
        raise error(f"{path}: cannot be read ({reason})") from None


def read_regular(path: str | Path, error: type[RflaError] = DataError) -> bytes:
    """Return the bytes of a regular file.

    Raises:
        RflaError: As in `open_regular`; too large for the memory.
    """
    with open_regular(path, error) as file:
        try:
            return file.read()
        except OSError as failure:
            raise error(f"{path}: cannot be read ({failure.strerror})") from None
        except MemoryError:
            raise error(f"{path}: too large for the memory of this machine") from None


_KINDS = {
    stat.S_IFDIR: "a directory",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def is_of_kernel(directory: str | Path) -> bool:
    """Whether a directory is on a file system that the kernel makes up: /proc, /sys."""
    try:
        return os.stat(directory).st_dev in _kernel_devices()
    except OSError:
        return False


@cache
def _kernel_devices() -> frozenset[int]:
    """Device numbers of the file systems that the kernel makes up."""
    mounted = [os.stat(folder).st_dev for folder in ("/proc", "/sys") if os.path.isdir(folder)]
    return frozenset(mounted) - {os.stat("/").st_dev} if mounted else frozenset()


def foreign_content(head: bytes) -> str | None:
    """Name what stands in the place of a binary file, from its first kilobyte.

    A download that went wrong leaves a web page, a repository cloned without Git LFS a pointer.

    Returns:
        What it is and what to do; None where the bytes may be what was wanted.
    """
    start = head.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if not head:
        return "an empty file; download it again"
    if start.startswith((b"<!doctype html", b"<html")):
        return "a web page (HTML), which a failed download leaves; download it again"
    if start.startswith(b"version https://git-lfs"):
        return "a Git LFS pointer, not the file itself; run 'git lfs pull'"
    if not any(byte < 9 or 13 < byte < 32 for byte in head):
        return "a text file"
    return None

"""Where tools write: beside the target first, and renamed when all is whole."""

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rfla.errors import DataError
from rfla.files import hold_lock, release_lock, unwritable

MARK = "convert.json"  # a directory that holds it was written by us, and may be replaced
NOTE = ".rfla"  # in directories that are on their way in or out: safe to delete


def check_target(out: Path, sources: Sequence[Path], exist_ok: bool | None) -> None:
    """Refuse a target that holds something, or cannot be written.

    Args:
        out: The directory.
        sources: What is read, which it must not hold.
        exist_ok: Whether an earlier conversion may be replaced; None: the verb has no such key.

    Raises:
        DataError: `out` is a file, or is not empty and not ours to replace, or holds the source.
    """
    target = Path(os.path.realpath(out))
    for source in sources:
        if Path(os.path.realpath(source)).is_relative_to(target):
            raise DataError(f"out={out}: holds the source {source}; give a directory outside it")
    if os.path.lexists(out) and not out.is_dir():
        raise DataError(f"out={out}: is {'a file' if out.exists() else 'a link to nothing'}")
    if wrong := unwritable(out.parent):
        raise DataError(f"out={out}: {wrong}")
    if out.is_dir() and any(out.iterdir()):
        if not exist_ok:
            mend = "" if exist_ok is None else ", or exist_ok=true to replace a conversion"
            raise DataError(f"out={out}: is not empty; give another directory{mend}")
        if not (out / MARK).is_file():
            raise DataError(
                f"out={out}: is not empty and was not written by rfla convert (no {MARK}); "
                "it is left alone"
            )


@contextmanager
def partial_directory(
    out: Path, sources: Sequence[Path], exist_ok: bool | None = None
) -> Iterator[Path]:
    """Give a new directory beside `out` that becomes `out` when the block ends well.

    It goes away when the block fails.
    What a killed run left there is removed first.

    Args:
        out: As in `check_target`, which is asked.
        sources: As there.
        exist_ok: As there.

    Raises:
        DataError: As `check_target`; something else is in the way; another process writes there.
    """
    with _alone(out):
        _put_back(out)
        # Callers ask before they read anything; another process may have filled it since.
        check_target(out, sources, exist_ok)
        with _beside(out) as folder:
            yield folder


@contextmanager
def _alone(out: Path) -> Iterator[None]:
    """Keep other processes from writing to `out` while the block runs."""
    lock = out.with_name(f".{out.name}.lock")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        handle = hold_lock(lock)
    except BlockingIOError:
        raise DataError(
            f"out={out}: another process writes there; give another directory, or wait for it"
        ) from None
    except OSError as error:
        raise DataError(f"out={out}: cannot be written ({error.strerror})") from None
    try:
        yield
    finally:
        release_lock(lock, handle)


@contextmanager
def _beside(out: Path) -> Iterator[Path]:
    """Give `OUT.partial`, and rename it to `out` when the block ends well."""
    beside = out.with_name(f"{out.name}.partial")
    note = beside / NOTE
    _clear(beside)
    _clear(_old(out))
    beside.mkdir(parents=True)
    note.write_text("An unfinished conversion; safe to delete.\n", encoding="utf-8")
    try:
        yield beside
    except BaseException as error:
        if isinstance(error, OSError) and error.filename is None:  # a full disk names no file
            error.filename = str(beside)
        shutil.rmtree(beside, ignore_errors=True)
        raise
    _move_into_place(beside, out)


def _old(out: Path) -> Path:
    """Where an earlier conversion goes until the new one is in its place."""
    return out.with_name(f"{out.name}.old")


def _clear(left: Path) -> None:
    """Remove what a killed process left.

    Raises:
        DataError: It is not ours.
    """
    if left.exists():
        if not (left / NOTE).is_file() and any(left.iterdir()):
            raise DataError(f"{left}: is in the way; remove it or give another out=")
        shutil.rmtree(left)


def _put_back(out: Path) -> None:
    """Undo a replacement that was killed between its two renames."""
    if not out.exists() and (_old(out) / NOTE).is_file():
        _old(out).rename(out)
        (out / NOTE).unlink()


def _move_into_place(beside: Path, out: Path) -> None:
    """Rename the finished directory to `out`.

    An earlier conversion there makes room first and is removed last.
    """
    old = _old(out)
    if out.is_dir() and any(out.iterdir()):
        (out / NOTE).write_text("Replaced by a later conversion; safe to delete.\n", "utf-8")
        out.rename(old)
    elif out.is_dir():
        out.rmdir()
    beside.rename(out)
    (out / NOTE).unlink()
    shutil.rmtree(old, ignore_errors=True)


def place_image(image: Path, target: Path) -> None:
    """Put an image at `target`: a hard link where the file system allows, else a copy.

    Symbolic links are resolved.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.exists():
        return
    real = os.path.realpath(image)
    try:
        os.link(real, target)
    except OSError:
        beside = target.with_name(f"{target.name}.tmp")
        shutil.copyfile(real, beside)
        beside.replace(target)

"""Directories of runs (`runs/train`, `runs/train2`, ...): made, found and held.

A directory belongs to one process at a time.

Every file in one is written beside its place and renamed over the old one. Where that fails (a full
disk, a directory that has become read-only) the run ends with one line, and the files before are as
they were.
"""

import errno
import os
import shlex
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from rfla.cfg import Config
from rfla.cfg.document import to_yaml
from rfla.cfg.resume import TRACES
from rfla.engine.distributed import World, agreed, gather
from rfla.errors import ExistingRunError
from rfla.files import half_written, hold_lock, release_lock, write_atomically

STATE_NAME = "last.state.safetensors"


def weights_path(run_dir: Path, name: str) -> Path:
    """Return the path of the weights `best`, `last` or `epoch3` of a run."""
    return run_dir / "weights" / f"{name}.safetensors"


def state_path(run_dir: Path) -> Path:
    """Return the path of the file that a resumed run goes on from."""
    return run_dir / "weights" / STATE_NAME


def how_to_go_on(run_dir: Path) -> str:
    """Return the command that takes up a run which has ended too early."""
    if state_path(run_dir).exists():
        return f"go on: rfla train resume={shlex.quote(str(run_dir))}"
    return "no state was saved yet: start again"


@contextmanager
def writing(run_dir: Path, path: Path) -> Iterator[None]:
    """Turn a file that cannot be written into one line that says how to go on.

    Args:
        run_dir: The run's directory.
        path: What is written; an error that names its file is believed more.

    Raises:
        ExistingRunError: The disk is full, or the directory may not be written any more.
    """
    try:
        if not path.parent.is_dir():  # writing weights would make it again, without the rest
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path.parent))
        yield
    except Exception as error:
        number = getattr(error, "errno", None)
        # safetensors reports a full disk as its own exception, with the system's words in it
        if number is None and "os error" not in str(error):
            raise
        reason = getattr(error, "strerror", None) or str(error)
        where = getattr(error, "filename", None) or path
        raise ExistingRunError(
            f"cannot write {where}: {reason}; the files written before are whole; "
            f"{how_to_go_on(run_dir)}"
        ) from error


def create_run_dir(project: str | Path, name: str, exist_ok: bool = False) -> Path:
    """Make and return the first free one of `project/name`, `project/name2`, ...

    With `exist_ok` the directory `project/name` itself is used, new or not. Two processes that ask
    at the same moment get different directories, because making one is atomic.

    Raises:
        ExistingRunError: The directory cannot be made or written.
    """
    base = Path(project) / name
    try:
        base.parent.mkdir(parents=True, exist_ok=True)
        if exist_ok:
            base.mkdir(exist_ok=True)
            return base
        number = 1
        while True:
            candidate = base if number == 1 else base.with_name(f"{base.name}{number}")
            try:
                candidate.mkdir()
                return candidate
            except FileExistsError:
                number += 1
    except (OSError, ValueError) as error:  # ValueError: a name with a zero byte
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise ExistingRunError(
            f"cannot make the run directory {base}: {reason}; choose another project= or name="
        ) from error


def lock_run_dir(run_dir: Path) -> IO[str]:
    """Hold `run_dir` for this process until the returned file is closed.

    Raises:
        ExistingRunError: Another process writes into this directory, or it cannot be written.
    """
    try:
        return hold_lock(run_dir / ".lock")
    except BlockingIOError as error:
        raise ExistingRunError(
            f"another process writes into {run_dir}; give a new name= or wait for it"
        ) from error
    except OSError as error:
        raise ExistingRunError(f"cannot write to {run_dir}: {error.strerror}") from error


@contextmanager
def claim_run_dir(
    cfg: Config, world: World, default_name: str, sources: Iterable[str] = ()
) -> Iterator[Path]:
    """Make the run's directory with its `args.yaml`, and hold it while the block runs.

    A resumed run takes up its own. It has its `args.yaml`; the new one is written by `train`, once
    the state has been found to fit.

    Args:
        cfg: Of the run.
        world: All its processes.
        default_name: Of the directory, and the verb.
        sources: Files that the run reads, and must not write over.

    Raises:
        ExistingRunError: The directory cannot be made or written, another process has it, or with
            `exist_ok` it holds a source.
    """
    run_dir, lock = None, None
    with agreed(world):
        if world.is_main:
            if cfg.exist_ok and not cfg.resume:
                _refuse_sources_in(Path(cfg.project) / (cfg.name or default_name), sources)
            run_dir, lock = _claim(cfg, default_name)
    run_dir = gather(world, run_dir)[0]
    assert run_dir is not None
    try:
        yield run_dir
    finally:
        if lock is not None:
            release_lock(run_dir / ".lock", lock)
            if not (cfg.resume or cfg.exist_ok):
                _remove_if_bare(run_dir)


def _remove_if_bare(run_dir: Path) -> None:
    """Remove a directory that holds nothing but the settings of its run."""
    with suppress(OSError):
        # ends at the first other file: there may be many
        others = (path for path in run_dir.rglob("*") if path != run_dir / "args.yaml")
        if all(path.is_dir() for path in others):
            shutil.rmtree(run_dir)


def _refuse_sources_in(run_dir: Path, sources: Iterable[str]) -> None:
    place = run_dir.resolve()
    for source in sources:
        if Path(source).resolve().is_relative_to(place):
            raise ExistingRunError(
                f"{run_dir}: holds the source {source}, and exist_ok=true could write over it; "
                "give another project= or name="
            )


def _claim(cfg: Config, default_name: str) -> tuple[Path, IO[str]]:
    """Make or take up the directory and hold it."""
    if cfg.resume:
        run_dir = Path(str(cfg.resume))
    else:
        run_dir = create_run_dir(cfg.project, cfg.name or default_name, cfg.exist_ok)
    lock = lock_run_dir(run_dir)
    try:
        for left in half_written(run_dir):
            left.unlink(missing_ok=True)
        if default_name == "train":
            (run_dir / "weights").mkdir(exist_ok=True)
            if not cfg.resume:  # states of an earlier run, which a new one must not resume
                for state in run_dir.glob(f"weights/{STATE_NAME}*"):
                    state.unlink()
        if not cfg.resume:
            for progress in run_dir.glob(TRACES["predict"]):  # of one that was stopped
                progress.unlink()
            write_atomically(run_dir / "args.yaml", to_yaml(cfg))
    except OSError as error:
        release_lock(run_dir / ".lock", lock)
        for empty in (run_dir / "weights", run_dir):  # leave nothing of a run that could not begin
            with suppress(OSError):
                empty.rmdir()
        raise ExistingRunError(f"cannot write to {run_dir}: {error.strerror}") from error
    return run_dir, lock

"""Directories of runs: numbers, one owner at a time, clear refusals."""

import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from rfla.cfg import Config, load_saved
from rfla.engine.distributed import World
from rfla.engine.run_dir import claim_run_dir, create_run_dir, lock_run_dir
from rfla.errors import ConfigError, ExistingRunError


def test_numbers(tmp_path: Path) -> None:
    names = [create_run_dir(tmp_path / "new" / "runs", "train").name for _ in range(3)]
    assert names == ["train", "train2", "train3"]
    assert create_run_dir(tmp_path / "new" / "runs", "train", exist_ok=True).name == "train"


def test_a_race_gives_everyone_another_directory(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda _: create_run_dir(tmp_path, "train"), range(24)))
    assert len(set(made)) == 24


def test_not_a_directory(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("a file")
    with pytest.raises(
        ExistingRunError, match=r"cannot make the run directory .*choose another project="
    ):
        create_run_dir(tmp_path / "runs", "train")


def test_a_name_that_no_file_system_takes(tmp_path: Path) -> None:
    with pytest.raises(
        ExistingRunError, match="embedded null byte; choose another project= or name="
    ):
        create_run_dir(tmp_path, "a\0b")


def test_a_directory_that_may_not_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:  # a real one would let root write
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(ExistingRunError, match="Permission denied; choose another project="):
        create_run_dir(tmp_path / "runs", "train")


def test_a_disk_that_became_read_only_hides_no_error(
    config: Callable[..., Config], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(30, "Read-only file system")

    with (
        pytest.raises(ConfigError, match="what happened first"),
        claim_run_dir(config(), World(), "train"),
    ):
        monkeypatch.setattr(Path, "unlink", refuse)
        raise ConfigError("what happened first")


def test_one_owner_at_a_time(tmp_path: Path) -> None:
    first = lock_run_dir(tmp_path)
    with pytest.raises(ExistingRunError, match="another process writes into"):
        lock_run_dir(tmp_path)
    first.close()
    lock_run_dir(tmp_path).close()  # a lock file that a killed run left behind is nobody's


def test_a_killed_owner_leaves_no_lock(tmp_path: Path) -> None:
    code = (
        "import os, sys; from pathlib import Path; from rfla.engine.run_dir import lock_run_dir; "
        "handle = lock_run_dir(Path(sys.argv[1])); os.kill(os.getpid(), 9)"
    )
    assert subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False).returncode == -9
    lock_run_dir(tmp_path).close()


def test_claim_writes_the_settings_and_cleans_up(config: Callable[..., Config]) -> None:
    cfg = config(lr0=0.02)
    with claim_run_dir(cfg, World(), "train") as run_dir:
        assert (run_dir / "weights").is_dir()
        saved = load_saved(run_dir / "args.yaml")
        assert (saved.lr0, saved.given) == (0.02, cfg.given)
        with pytest.raises(ExistingRunError):
            lock_run_dir(run_dir)
        (run_dir / "results.csv").touch()
    assert sorted(path.name for path in run_dir.iterdir()) == [
        "args.yaml",
        "results.csv",
        "weights",
    ]
    with claim_run_dir(cfg, World(), "train") as bare:
        pass
    assert not bare.exists()  # it held its settings alone

"""Only regular files are opened."""

import gc
import os
import socket
import weakref
from pathlib import Path

import pytest

from rfla.errors import DataError, MetricError, RflaError
from rfla.files import (
    as_unicode,
    hold_lock,
    open_regular,
    read_regular,
    refused_in_one_line,
    release_lock,
    write_atomically,
)


def test_a_file_is_read(tmp_path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    (tmp_path / "link").symlink_to(tmp_path / "a")
    assert read_regular(tmp_path / "a") == read_regular(tmp_path / "link") == b"abc"


def test_a_forked_process_does_not_hold_a_lock_on(tmp_path) -> None:
    path = tmp_path / "lock"
    handle = hold_lock(path)
    child = os.fork()
    if child == 0:
        os._exit(0 if handle.closed else 1)
    assert os.waitpid(child, 0)[1] == 0
    with pytest.raises(BlockingIOError):
        hold_lock(path)
    release_lock(path, handle)
    release_lock(path, hold_lock(path))
    seen = weakref.ref(handle)
    del handle
    gc.collect()
    assert seen() is None  # what closes it in forked processes does not keep it


def test_a_new_file_has_the_rights_of_any_other(tmp_path, monkeypatch) -> None:
    """The umask is that of the whole process: asking for it would change it for other threads."""
    monkeypatch.setattr(os, "umask", None)
    write_atomically(tmp_path / "a", "x")
    (tmp_path / "b").write_text("x")
    assert (tmp_path / "a").stat().st_mode == (tmp_path / "b").stat().st_mode
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]


@pytest.mark.timeout(20)
def test_what_is_no_file_is_refused_before_it_is_opened(tmp_path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "socket"))
        for path, message in (
            (tmp_path / "pipe", "is a named pipe"),
            (tmp_path / "socket", "is a socket"),
            (tmp_path, "is a directory"),
            (Path("/dev/zero"), "is a device"),
            (tmp_path / "none", "no such file"),
            (tmp_path / "nul\0", "cannot be read"),
            (tmp_path / ("n" * 300), "cannot be read"),
        ):
            with pytest.raises(MetricError, match=message):
                open_regular(path, MetricError)


def test_files_of_the_kernel_are_refused() -> None:
    with pytest.raises(DataError, match="file of the kernel"):
        open_regular("/proc/self/status")


def test_bytes_that_are_no_text_become_a_mark() -> None:
    name = as_unicode(os.fsdecode(b"a\xff\xfe/\xc3\xbc.png"))
    assert name == "a\ufffd\ufffd/ü.png" == as_unicode(name)


@pytest.mark.parametrize(
    ("name", "reason"), [("", "Is a directory"), ("none/a", "No such file"), ("a\0", "null byte")]
)
def test_what_cannot_be_written_is_one_line(tmp_path, name: str, reason: str) -> None:
    with (
        pytest.raises(RflaError, match=f"cannot be written .*{reason}") as caught,
        refused_in_one_line(tmp_path / name),
    ):
        write_atomically(tmp_path / name, "x")
    assert str(caught.value).startswith(f"{tmp_path / name}: ")
    assert list(tmp_path.iterdir()) == []

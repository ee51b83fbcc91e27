"""Only regular files are opened."""

import os
import socket
from pathlib import Path

import pytest

from rfla.errors import DataError, MetricError
from rfla.files import open_regular, read_regular, write_atomically


def test_a_file_is_read(tmp_path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    (tmp_path / "link").symlink_to(tmp_path / "a")
    assert read_regular(tmp_path / "a") == read_regular(tmp_path / "link") == b"abc"


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

"""The words for a loading process that has died."""

import pytest

from rfla.engine.loaders import lost_worker


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (
            RuntimeError(
                "DataLoader worker (pid 3) is killed by signal: Bus error. It is possible"
            ),
            "/dev/shm",
        ),
        (
            RuntimeError("DataLoader worker (pid(s) 3, 4) exited unexpectedly"),
            "has died; memory may be short",
        ),
        (RuntimeError("something else"), ""),
        (ValueError("DataLoader worker"), ""),
    ],
)
def test_how_a_loading_process_died(error: Exception, words: str) -> None:
    text = lost_worker(error)
    assert words in text and bool(text) == bool(words)

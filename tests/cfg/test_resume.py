"""Earlier runs: the latest weights of a project."""

import os
from pathlib import Path

from rfla.cfg.resume import latest_weights


def test_latest_weights(tmp_path: Path) -> None:
    assert latest_weights(tmp_path) is None
    for age, run in enumerate(("a", "b")):
        (tmp_path / run / "weights").mkdir(parents=True)
        file = tmp_path / run / "weights" / "last.safetensors"
        file.touch()
        os.utime(file, (100 - age, 100 - age))
    assert latest_weights(tmp_path) == tmp_path / "a" / "weights" / "last.safetensors"
    (tmp_path / "b" / "weights" / "best.safetensors").touch()
    assert latest_weights(tmp_path) == tmp_path / "b" / "weights" / "best.safetensors"

"""The script for a GPU: a part that fails costs only itself, and its checks run on a CPU."""

import json
from pathlib import Path

import gpu_checks
import gpu_steps
import gpu_truth
import pytest


def test_one_bad_part_costs_only_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    parts = [
        gpu_truth.Part("check crash", ("-c", "raise SystemExit('device assert')"), 30),
        gpu_truth.Part("check hang", ("-c", "import time; print('step 1'); time.sleep(60)"), 1),
        gpu_truth.Part("check fine", ("-c", "print('{\"fcos\": 0}')"), 30),
        gpu_truth.Part("speed", ("-c", "print('not asked for')"), 30),
    ]
    monkeypatch.setattr(gpu_truth, "parts_of", lambda *_: parts)
    outcomes = gpu_truth.main(["--out", str(tmp_path / "out"), "--only", "check"])
    assert [one.state for one in outcomes] == ["failed", "too long", "ok"]
    assert outcomes[0].said == "device assert"
    assert outcomes[2].said == '{"fcos": 0}'
    written = json.loads((tmp_path / "out" / "gpu_truth.json").read_text())
    assert [row["name"] for row in written] == ["check crash", "check hang", "check fine"]
    assert "| check hang | too long |" in (tmp_path / "out" / "gpu_truth.md").read_text()
    assert "check fine: ok" in capsys.readouterr().out


def test_parts_that_no_time_is_left_for_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        gpu_truth, "parts_of", lambda *_: [gpu_truth.Part("check x", ("-c", ""), 30)]
    )
    outcomes = gpu_truth.main(["--out", str(tmp_path), "--seconds", "1"])
    assert [one.state for one in outcomes] == ["no time left"]


def test_the_parts_are_scripts_that_exist(tmp_path: Path) -> None:
    for device in ("cuda", "cpu"):
        parts = gpu_truth.parts_of(device, 64, tmp_path)
        assert parts[0].name == "check assigner"  # what most depends on comes first
        assert all(Path(part.arguments[0]).exists() for part in parts)
        called = {part.arguments[1] for part in parts if "gpu_checks" in part.arguments[0]}
        assert called == set(gpu_checks.CHECKS)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["steps", "overflow", "nan", "waits", "detections", "memory", "distributed"]
)
def test_checks_hold_on_a_cpu(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_steps, "DETECTORS", ("fcos_p2", "faster_rcnn"))
    figures = gpu_checks.CHECKS[name]("cpu", 64)
    assert figures
    json.dumps(figures)

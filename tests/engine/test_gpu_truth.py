"""The script for a GPU: a part that fails costs only itself, and its checks run on a CPU."""

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


def script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, BENCHMARKS / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def test_one_bad_part_costs_only_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    module = script("gpu_truth")
    parts = [
        module.Part("check crash", ("-c", "raise SystemExit('device assert')"), 30),
        module.Part("check hang", ("-c", "import time; print('step 1'); time.sleep(60)"), 1),
        module.Part("check fine", ("-c", "print('{\"fcos\": 0}')"), 30),
        module.Part("speed", ("-c", "print('not asked for')"), 30),
    ]
    monkeypatch.setattr(module, "parts_of", lambda *_: parts)
    outcomes = module.main(["--out", str(tmp_path / "out"), "--only", "check"])
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
    module = script("gpu_truth")
    monkeypatch.setattr(module, "parts_of", lambda *_: [module.Part("check x", ("-c", ""), 30)])
    outcomes = module.main(["--out", str(tmp_path), "--seconds", "1"])
    assert [one.state for one in outcomes] == ["no time left"]


def test_the_parts_are_scripts_that_exist(tmp_path: Path) -> None:
    module, checks = script("gpu_truth"), script("gpu_checks")
    for device in ("cuda", "cpu"):
        parts = module.parts_of(device, 64, tmp_path)
        assert parts[0].name == "check assigner"  # what most depends on comes first
        assert all(Path(part.arguments[0]).exists() for part in parts)
        called = {part.arguments[1] for part in parts if "gpu_checks" in part.arguments[0]}
        assert called == set(checks.CHECKS)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["steps", "overflow", "nan", "waits", "detections", "memory", "distributed"]
)
def test_checks_hold_on_a_cpu(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    checks = script("gpu_checks")
    monkeypatch.setattr(checks, "DETECTORS", ("fcos_p2", "faster_rcnn"))
    figures = checks.CHECKS[name]("cpu", 64)
    assert figures
    json.dumps(figures)

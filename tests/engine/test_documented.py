"""The example of docs/training.md and the two benchmark scripts really run."""

import importlib.util
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from rfla.engine.hooks import Hooks
from rfla.models import zoo
from rfla.models.build_dense import build_fcos

ROOT = Path(__file__).resolve().parents[2]


def script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / "benchmarks" / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = sys.modules[name] = importlib.util.module_from_spec(spec)  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def test_the_example_of_hooks(settings: Callable[..., dict[str, Any]], capsys: pytest.CaptureFixture[str]) -> None:
    text = (ROOT / "docs" / "training.md").read_text()
    (code,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    call = 'RFLA("fcos_p2").train(data="demo", epochs=2, hooks=hooks)'
    assert call in code
    space: dict[str, Any] = {"given": {key: value for key, value in settings(epochs=2).items() if key != "model"}}
    exec(code.replace(call, 'RFLA("fcos_p2").train(**given, hooks=hooks)'), space)
    assert len(space["hooks"].history) == 2
    assert max(space["hooks"].history) == pytest.approx(space["metrics"].ap)
    assert "epoch 1: best.safetensors" in capsys.readouterr().out


def test_every_hook_is_in_the_table() -> None:
    documented = set(re.findall(r"^\| `(\w+)\(trainer", (ROOT / "docs" / "training.md").read_text(), re.MULTILINE))
    assert documented == {name for name in vars(Hooks) if not name.startswith("_")}


@pytest.mark.slow
def test_throughput_on_a_cpu(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(zoo.DETECTORS, "fcos", build_fcos)  # the real one
    out = tmp_path / "r.json"
    short = ["--imgsz", "64", "--batch", "1", "--steps", "1", "--models", "fcos", "--seconds", "59"]
    result = script("train_gpu").main(["--device", "cpu", *short, "--out", str(out)])
    assert json.loads(out.read_text()) == result
    assert {row["model"] for row in result["rows"]} >= {"fcos", "torchvision FCOS"}
    assert all(row["images_per_s"] > 0 and row["gflop_per_image"] > 0 for row in result["rows"])
    assert "fcos compiled" in result["left_out"]  # no time for it
    assert "| fcos | eager |" in capsys.readouterr().out


@pytest.mark.slow
def test_soak_for_seconds(settings: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    soak = script("soak")
    tokens = [f"data={settings()['data']}", "fraction=1.0", "imgsz=64"]
    soak.main(["--minutes", "0.1", "--period", "0.2", "--out", str(tmp_path / "s.png"), "--set", *tokens])
    assert (tmp_path / "s.png").stat().st_size > 5000
    rows = (tmp_path / "s.csv").read_text().splitlines()
    assert rows[0] == "minutes,main_mb,workers_mb,open_files,children" and len(rows) > 4


def test_soak_judges_the_last_quarter_against_the_second() -> None:
    rows = [{"main_mb": float(value)} for value in (50, 50, 100, 100, 100, 100, 110, 110)]
    assert script("soak").judge(rows) == {"main_mb": (100.0, 110.0)}

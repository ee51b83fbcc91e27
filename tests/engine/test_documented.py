"""The example of docs/training.md and the benchmark scripts really run."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import boxes_per_image
import pytest
import soak
import train_gpu

from rfla.cfg.layer_files import model_names
from rfla.engine.hooks import Hooks
from rfla.models import zoo
from rfla.models.fcos import FCOS

ROOT = Path(__file__).resolve().parents[2]


def test_the_example_of_hooks(
    settings: Callable[..., dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    text = (ROOT / "docs" / "training.md").read_text()
    (code,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    call = 'RFLA("fcos_p2").train(data="demo", epochs=2, hooks=hooks)'
    assert call in code
    space: dict[str, Any] = {
        "given": {key: value for key, value in settings(epochs=2).items() if key != "model"}
    }
    exec(code.replace(call, 'RFLA("fcos_p2").train(**given, hooks=hooks)'), space)
    assert len(space["hooks"].history) == 2
    assert max(space["hooks"].history) == pytest.approx(space["metrics"].ap)
    assert "epoch 1: best.safetensors" in capsys.readouterr().out


def test_every_hook_is_in_the_table() -> None:
    documented = set(
        re.findall(r"^\| `(\w+)\(run", (ROOT / "docs" / "training.md").read_text(), re.MULTILINE)
    )
    assert documented == {name for name in vars(Hooks) if not name.startswith("_")}


@pytest.mark.slow
def test_throughput_on_a_cpu(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(zoo.DETECTORS, "fcos", FCOS)  # the real one
    out = tmp_path / "r.json"
    short = [
        "--imgsz",
        "64",
        "--batch",
        "1",
        "--steps",
        "1",
        "--models",
        "fcos",
        "--seconds",
        "100000",
    ]
    monkeypatch.setitem(train_gpu.SECONDS, "compiled", 1e9)
    result = train_gpu.main(["--device", "cpu", *short, "--out", str(out)])
    assert json.loads(out.read_text()) == result
    assert {row["model"] for row in result["rows"]} >= {"fcos", "torchvision FCOS"}
    assert all(row["images_per_s"] > 0 and row["gflop_per_image"] > 0 for row in result["rows"])
    assert "fcos compiled" in result["left_out"]  # no time for it
    assert {row["mode"] for row in result["rows"]} == {"eager", "real loader"}
    printed = capsys.readouterr().out
    assert "| fcos | eager |" in printed and "fcos over torchvision's FCOS, eager: " in printed


@pytest.mark.slow
def test_boxes_in_an_image(capsys: pytest.CaptureFixture[str]) -> None:
    rows = boxes_per_image.main(
        ["--models", "fcos_p2", "--size", "64", "--boxes", "1", "50", "--steps", "1"]
    )
    assert [row["boxes"] for row in rows] == [1, 50]
    assert all(float(row["seconds"]) > 0 and float(row["mb"]) > 0 for row in rows)
    assert "| fcos_p2 | 50 |" in capsys.readouterr().out


def test_what_matters_most_is_measured_first() -> None:
    jobs = train_gpu.jobs_of(list(train_gpu.MODELS))
    assert set(train_gpu.MODELS) == set(model_names())
    assert jobs[:4] == [
        ("fcos", "eager"),
        ("fcos_p2", "eager"),
        ("torchvision FCOS", "eager"),
        ("torchvision Faster R-CNN", "eager"),
    ]
    assert len(jobs) == len(set(jobs)) == 2 * len(train_gpu.MODELS) + 2 + train_gpu.FIRST


@pytest.mark.slow
def test_soak_for_seconds(settings: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    tokens = [f"data={settings()['data']}", "fraction=1.0", "imgsz=64"]
    soak.main(
        ["--minutes", "0.1", "--period", "0.2", "--out", str(tmp_path / "s.png"), "--set", *tokens]
    )
    assert (tmp_path / "s.png").stat().st_size > 5000
    rows = (tmp_path / "s.csv").read_text().splitlines()
    assert rows[0] == "minutes,main_mb,workers_mb,open_files,children" and len(rows) > 4


def test_soak_judges_the_last_quarter_against_the_second() -> None:
    rows = [{"main_mb": float(value)} for value in (50, 50, 100, 100, 100, 100, 110, 110)]
    assert soak.judge(rows) == {"main_mb": (100.0, 110.0)}

"""What fails for sure fails before anything heavy is loaded."""

import sys
from pathlib import Path

import pytest

from rfla.cfg import load_config, preflight
from rfla.cfg.preflight import check_early
from rfla.cfg.schema import Mode
from rfla.errors import ConfigError, RflaError


@pytest.fixture(autouse=True)
def _a_linux_machine_without_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preflight.glob, "glob", lambda name: [])
    monkeypatch.setattr(sys, "platform", "linux")


@pytest.mark.parametrize(
    ("mode", "values", "line"),
    [
        ("train", {"device": "cpu", "batch": -1}, "batch=-1 looks for the largest batch that fits"),
        ("train", {"device": "0"}, "device=0: no CUDA GPU found; use device=cpu"),
        ("val", {"device": "cuda"}, "device=cuda: no CUDA GPU found"),
        ("predict", {"device": "0,1"}, "device=0,1: no CUDA GPU found"),
        ("train", {"device": "mps"}, "device=mps: this machine has no Apple GPU"),
        ("train", {"data": "nothing"}, "data=nothing: no such data YAML"),
        ("val", {"data": "nothing"}, "data=nothing: no such data YAML"),
        ("val", {"predictions": "no.json"}, "predictions=no.json: no such file"),
    ],
)
def test_refused_at_once(mode, values, line) -> None:
    given = {"model": "fcos", "data": "demo", "source": "x"} | values
    with pytest.raises(RflaError) as caught:
        check_early(load_config(given, mode=mode), mode)
    assert str(caught.value).startswith(line) and "\n" not in str(caught.value)


@pytest.mark.parametrize("mode", ["train", "val", "predict"])
def test_a_project_that_nothing_can_be_written_into(mode: Mode, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for project in (tmp_path / "file", tmp_path / "file" / "runs", Path("/proc/runs")):
        given = {"model": "fcos", "data": "demo", "source": "x", "project": str(project)}
        place = "/proc cannot be written to" if project.parts[1] == "proc" else "file is no direct"
        with pytest.raises(ConfigError, match=f"^project={project}: .*{place}"):
            check_early(load_config(given, mode=mode), mode)


@pytest.mark.parametrize("device", ["auto", "cpu"])
def test_everything_else_is_left_to_the_run(device: str) -> None:
    check_early(load_config({"model": "fcos", "data": "demo", "device": device}), "train")


def test_a_gpu_file_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether the GPU answers is for torch to say."""
    monkeypatch.setattr(preflight.glob, "glob", lambda name: ["/dev/nvidia0"])
    check_early(load_config({"model": "fcos", "data": "demo", "device": "0"}), "train")

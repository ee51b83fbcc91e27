"""`rfla export`: what it prints, what it refuses in one line, and figures of val on both."""

import json
import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from safetensors.torch import save_file

from rfla import RFLA
from rfla.cfg.verbs import ExportOptions
from rfla.cli import main
from rfla.errors import ConfigError, WeightsError
from rfla.export import benchmark, command, forms
from rfla.export.accuracy import Figures, refuse_loss
from rfla.export.parity import FLOAT16, Parity
from rfla.export.quantize import _without_advice


def test_the_command(
    weights: Callable[[str], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "sub" / "x.onnx"
    tokens = [f"model={weights('fcos_p2')}", f"out={out}", "format=onnx"]
    assert main(["export", *tokens]) == 0
    said = capsys.readouterr().out
    assert "parity with torch: 3 images, " in said and f"wrote {out}: " in said
    assert main(["export", *tokens]) == 2
    assert "exists already" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        (["format=coreml"], "format=coreml: must be one of onnx, torch_export, torchscript"),
        (["opset=11"], "opset=11: must be a whole number from 16 to 20"),
        (["out=x.bin"], "out=x.bin: the name of a file of format=onnx ends in .onnx"),
        (["model=fcos_p2"], "is not trained yet"),
        (["model=missing.safetensors"], "missing.safetensors: no such file"),
    ],
)
def test_refused_in_one_line(
    tokens: list[str],
    message: str,
    weights: Callable[[str], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    given = {token.partition("=")[0] for token in tokens}
    own = [] if "model" in given else [f"model={weights('fcos_p2')}"]
    assert main(["export", *own, *tokens]) == 2
    error = capsys.readouterr().err.strip()
    assert message in error and "\n" not in error
    assert not list(tmp_path.iterdir())


def test_a_place_that_cannot_be_written(
    weights: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before any work: nothing is traced."""
    monkeypatch.setattr(command, "load_trained", lambda *_: pytest.fail("loaded the weights"))
    (tmp_path / "file").touch()
    (tmp_path / "directory.onnx").mkdir()
    for out, message in (
        ("file/x.onnx", "file is no directory"),
        ("file/sub/x.onnx", "file is no directory"),
        ("directory.onnx", "directory.onnx is a directory"),
    ):
        options = ExportOptions(
            model=str(weights("fcos_p2")), out=str(tmp_path / out), overwrite=True
        )
        with pytest.raises(ConfigError, match=message):
            command.export(options)


@pytest.mark.parametrize(
    ("tokens", "split"),
    [
        (["export", "split=tst"], "tst"),
        (["export", "int8", "split=val", "calibration_split=tran"], "tran"),
        (["benchmark", "split=tst", "formats=[torch]"], "tst"),
    ],
)
def test_a_split_that_there_is_not(
    tokens: list[str],
    split: str,
    weights: Callable[[str], Path],
    boxes_data: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Before any work: nothing is traced."""
    for module in (command, benchmark):
        monkeypatch.setattr(module, "load_trained", lambda *_: pytest.fail("loaded the weights"))
    assert main([*tokens, f"model={weights('fcos_p2')}", f"data={boxes_data}"]) == 2
    assert f"no split '{split}'; splits are " in capsys.readouterr().err


def test_ctrl_c_leaves_nothing(
    weights: Callable[[str], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(forms, "compare", interrupted)
    out = tmp_path / "sub" / "x.onnx"
    assert main(["export", f"model={weights('fcos_p2')}", f"out={out}"]) == 130
    assert capsys.readouterr().err.strip() == "stopped"
    assert not list(tmp_path.iterdir())


def test_half_that_nobody_can_judge(
    weights: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No detection with the score that half precision is judged from: nothing is traced."""
    monkeypatch.setattr(forms, "FLOAT16", replace(FLOAT16, lowest=1.1))
    monkeypatch.setattr(command, "exported_bytes", lambda *_: pytest.fail("traced the network"))
    options = {"model": str(weights("fcos_p2")), "out": str(tmp_path / "x.onnx"), "half": True}
    with pytest.raises(
        ConfigError, match=r"half=true: no detection in 3 images scores 1\.1 or more"
    ):
        command.export(ExportOptions(**options))


def test_detectors_takes_no_small_images(weights: Callable[[str], Path]) -> None:
    options = ExportOptions(model=str(weights("detectors")), imgsz=64)
    with pytest.raises(ConfigError, match="imgsz=64: detectors of free size takes images of 96"):
        command.export(options)


def test_detectors_needs_a_late_opset(weights: Callable[[str], Path], tmp_path: Path) -> None:
    options = ExportOptions(model=str(weights("detectors")), out=str(tmp_path / "x.onnx"), opset=18)
    with pytest.raises(ConfigError, match="opset=18: detectors needs DeformConv"):
        command.export(options)


def test_a_missing_extra_is_named(
    weights: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def absent(name: str) -> Any:
        raise ImportError(name)

    monkeypatch.setattr("rfla.errors.import_module", absent)
    with pytest.raises(ConfigError, match=r"onnx is not installed; .*pip install '.\[export\]'"):
        command.export(ExportOptions(model=str(weights("fcos_p2"))))


def test_a_graph_that_finds_something_else_is_not_written(
    weights: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    graph_of = forms.graph_of

    def broken(*args: Any) -> Any:
        graph = graph_of(*args)
        graph.mean += 10  # a normalisation that is a little off
        return graph

    monkeypatch.setattr(forms, "graph_of", broken)
    out = tmp_path / "x.onnx"
    with pytest.raises(ConfigError, match="does not find what the network finds"):
        command.export(ExportOptions(model=str(weights("fcos_p2")), out=str(out)))
    assert not out.exists()


def test_from_python(weights: Callable[[str], Path], tmp_path: Path) -> None:
    out = RFLA(weights("fcos_p2")).export(out=tmp_path / "x.onnx", max_det=7)
    assert out == tmp_path / "x.onnx" and RFLA(out).names == ("ship", "car", "bus")
    with pytest.raises(ConfigError, match="unknown key 'max_dets'"):
        RFLA(weights("fcos_p2")).export(max_dets=7)  # type: ignore[call-arg]
    with pytest.raises(ConfigError, match="is an exported network; give the weights"):
        RFLA(out).export(out=tmp_path / "y.onnx")


def test_the_state_of_a_training_is_named(weights: Callable[[str], Path], tmp_path: Path) -> None:
    state = tmp_path / "last.state.safetensors"
    save_file({"x": torch.zeros(1)}, state)
    with pytest.raises(WeightsError, match="the state of a training, for resume="):
        command.export(ExportOptions(model=str(state)))


def test_an_export_cannot_be_trained(exported: Callable[..., Path]) -> None:
    with pytest.raises(ConfigError, match="an exported network cannot be trained"):
        RFLA(exported("fcos_p2")).train(data="demo")


@pytest.mark.parametrize("settings", [{}, {"slice": 96}])
def test_val_gives_the_same_figures(
    settings: dict[str, Any],
    weights: Callable[[str], Path],
    exported: Callable[..., Path],
    boxes_data: Path,
    tmp_path: Path,
) -> None:
    common = {
        "data": str(boxes_data),
        "device": "cpu",
        "project": str(tmp_path),
        "workers": 0,
        "plots": False,
        **settings,
    }
    figures = [
        RFLA(path).val(**common).figures for path in (weights("fcos_p2"), exported("fcos_p2"))
    ]
    assert figures[0].keys() == figures[1].keys()
    for name, value in figures[0].items():
        assert figures[1][name] == pytest.approx(value, abs=1e-3, nan_ok=True)


def test_messages_that_a_caller_keeps_back_stay_back() -> None:
    logging.disable(logging.ERROR)
    try:
        with _without_advice():
            assert logging.root.manager.disable == logging.ERROR
        assert logging.root.manager.disable == logging.ERROR
    finally:
        logging.disable(logging.NOTSET)
    with _without_advice():
        assert logging.root.manager.disable == logging.WARNING
    assert logging.root.manager.disable == logging.NOTSET


def test_int8_is_written_with_its_cost_or_refused(
    weights: Callable[[str], Path],
    boxes_data: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "x.onnx"
    tokens = [f"model={weights('fcos_p2')}", f"out={out}", "int8", "calibration_split=val"]
    assert main(["export", *tokens]) == 2
    assert "int8=true needs data=" in capsys.readouterr().err
    assert main(["export", *tokens, f"data={boxes_data}"]) == 2
    # noise holds no objects: nothing is found, so that nothing can be lost
    assert "what int8=true costs cannot be said" in capsys.readouterr().err
    assert not out.exists()
    assert main(["export", *tokens, f"data={boxes_data}", "force"]) == 0
    said = capsys.readouterr().out
    assert "format" in said and "APvt" in said and "int8=true" in said
    nodes = [node.op_type for node in onnx.load(out).graph.node]
    assert "QuantizeLinear" in nodes
    assert out.stat().st_size < 0.4 * weights("fcos_p2").stat().st_size
    assert len(RFLA(out).predict(boxes_data / "images", device="cpu", conf=0.02)) == 4


def test_losses_are_refused() -> None:
    """Each figure that loses too much is named: a tenth of AP, a quarter of APvt, 2 % of APt."""
    figures = {"ap": 0.5, "ap_vt": 0.2, "ap_t": 0.5, "ap_m": -1.0, "ap_s": 0.001}
    before = Figures("torch", 1.0, 1.0, figures)
    worse = figures | {"ap": 0.45, "ap_vt": 0.15, "ap_t": 0.49, "ap_s": 0.0}
    after = Figures("int8=true", 1.0, 1.0, worse)
    refuse_loss(before, after, 0.3)
    with pytest.raises(ConfigError) as caught:
        refuse_loss(before, after, 0.05)
    assert str(caught.value) == (
        "int8=true costs more than max_loss=0.05 of AP 0.500 to 0.450 (-10.0%), APvt 0.200 to "
        "0.150 (-25.0%); nothing is written; half=true is more exact, force=true writes it all the "
        "same"
    )


def test_a_difference_says_of_which_objects() -> None:
    """Two of three are found again: the box of 4 x 9 px, 6 px large, is not."""
    boxes = torch.tensor([[0.0, 0, 20, 20], [30, 30, 34, 39], [50, 50, 60, 60]])
    scores, labels = torch.tensor([0.9, 0.375, 0.25]), torch.zeros(3, dtype=torch.int64)
    original: Any = {"boxes": boxes, "scores": scores, "labels": labels}
    exported: Any = {key: value[[0, 2]] for key, value in original.items()}
    parity = Parity()
    parity.add(original, exported, 100, FLOAT16)
    assert parity.missed.tolist() == [[6.0, 0.375]] and parity.share == 0.8
    with pytest.raises(ConfigError) as caught:
        parity.require(FLOAT16, "x.onnx", "try another")
    assert str(caught.value).endswith(
        "80.00% matched, boxes within 0 px, scores within 0, where 95.0% at IoU 0.5 are needed; "
        "what only one of them finds is 6 to 6 px large, of scores 0.38 to 0.38; try another"
    )


def test_benchmark(
    weights: Callable[[str], Path],
    boxes_data: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "figures.json"
    tokens = [f"model={weights('fcos_p2')}", f"data={boxes_data}", f"out={out}", "fraction=2"]
    assert main(["benchmark", *tokens, "formats=[torch,onnx]"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["format", "torch", "onnx"]
    torch_row, onnx_row = json.loads(out.read_text())
    assert torch_row["values"].keys() == onnx_row["values"].keys() >= {"ap", "ap50", "ap_vt"}
    for name, value in torch_row["values"].items():
        assert onnx_row["values"][name] == pytest.approx(value, abs=1e-3)
    for given, message in (
        (tokens, "figures.json exists already"),
        ([*tokens[:2], f"out={weights('fcos_p2')}", "overwrite"], "a .json file is needed"),
        ([*tokens[:2], f"out={out}/sub/x.json"], "figures.json is no directory"),
        ([*tokens[:2], "formats=[]"], "formats=[]: must be a list of text that is not empty"),
    ):
        assert main(["benchmark", "formats=torch", *given]) == 2
        assert message in capsys.readouterr().err
    tokens[2] = f"out={tmp_path}/new.json"
    assert main(["benchmark", *tokens, "formats=onxx"]) == 2
    assert (
        "formats=onxx: one of torch, onnx, onnx-half, onnx-int8, torch_export, torchscript"
        in capsys.readouterr().err
    )


def test_a_file_of_free_size_takes_no_batch(weights: Callable[[str], Path]) -> None:
    with pytest.raises(ConfigError, match="batch=4: is for dynamic=false; this file takes any"):
        command.export(ExportOptions(model=str(weights("fcos_p2")), batch=4))

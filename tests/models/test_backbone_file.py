"""Weights of a backbone from its library's cache, from local files, and files that are refused."""

import logging
import os
import subprocess
import sys
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from torchvision import models

from rfla.cfg import load_config
from rfla.cfg.preflight import check_early
from rfla.cli import main
from rfla.engine.model_source import source_model, weights_metadata
from rfla.errors import ConfigError, WeightsError
from rfla.models import build_detector, load_pretrained_backbone
from rfla.models.backbone_file import load_backbone_file
from rfla.models.backbones.pretrained import reachable
from rfla.models.detector import Detector
from rfla.models.weights import save_weights

SMALL = {"neck.width": 8, "head.width": 8, "head.depth": 0}
NAME = "mobilenet_v3_small"


def detector(name: str = NAME, model: str = "fcos_p2") -> Detector:
    return build_detector(model, 2, settings=SMALL | {"backbone": name})


@pytest.fixture(scope="module")
def state() -> dict[str, Tensor]:
    """Of torchvision's whole network, classifier and all."""
    torch.manual_seed(1)
    found: dict[str, Tensor] = models.get_model(NAME, weights=None).state_dict()
    return found


def first(net: Detector) -> Tensor:
    return net.backbone.first_convolution().weight.detach()


def write(path: Path, state: dict[str, Tensor]) -> Path:
    if path.suffix == ".safetensors":
        save_file(state, path)
    else:
        torch.save({"state_dict": state, "epoch": 3} if path.suffix == ".pt" else state, path)
    return path


@pytest.mark.parametrize("file", ["w.safetensors", "w.pth", "w.pt"])
def test_a_file_of_the_library(file: str, state: dict[str, Tensor], tmp_path: Path) -> None:
    """The classifier and the last convolution, 8 + 6 tensors with the counter, stay behind."""
    net = detector()
    line = load_backbone_file(net, write(tmp_path / file, state))
    assert line.startswith(f"{tmp_path / file}: 234 tensors of mobilenet_v3_small; 10 not used (")
    own = net.backbone.state_dict()
    assert torch.equal(own["body.11.block.3.0.weight"], state["features.11.block.3.0.weight"])
    assert torch.equal(first(net), state["features.0.0.weight"])  # the pixels are its own
    assert not next(net.backbone.parameters()).requires_grad  # frozen_stages=1 as it was


def test_what_does_not_fit_is_said(state: dict[str, Tensor], tmp_path: Path) -> None:
    part = {key: value for key, value in state.items() if not key.startswith("features.11.block.3")}
    part["features.0.0.weight"] = torch.zeros(16, 4, 3, 3)
    line = load_backbone_file(detector(), write(tmp_path / "w.safetensors", part))
    assert "227 tensors of mobilenet_v3_small; 5 missing (body.11.block.3.0.weight, " in line
    assert "; 1 of another shape (body.0.0.weight); 10 not used (" in line


def test_the_backbone_of_a_weights_file(state: dict[str, Tensor], tmp_path: Path) -> None:
    """Its own input is known: what was trained on BGR is turned to RGB."""
    path = tmp_path / "own.safetensors"
    settings = SMALL | {"backbone": "resnet18"}
    source = build_detector("fcos_p2", 3, settings=settings)  # BGR, divided by nothing
    meta = weights_metadata(source.config, ["a", "b", "c"], 64, {}, {})
    save_weights(path, source.state_dict(), meta)
    net = build_detector("fcos", 2, settings=settings)
    load_backbone_file(net, path)
    assert torch.equal(first(net), first(source))
    net = build_detector("rfd", 2, settings=settings)
    load_backbone_file(net, path)
    std = torch.tensor([58.395, 57.12, 57.375]).view(1, 3, 1, 1)
    torch.testing.assert_close(first(net), first(source).flip(1) * std)


def test_the_pixels_of_a_resnets_file_are_imagenets(tmp_path: Path) -> None:
    state = models.resnet18(weights=None).state_dict()
    net = detector("resnet18", "rfd")
    load_backbone_file(net, write(tmp_path / "w.pth", state))
    assert torch.equal(first(net), state["conv1.weight"])
    net = detector("resnet18")
    load_backbone_file(net, tmp_path / "w.pth")
    std = torch.tensor([57.375, 57.12, 58.395]).view(1, 3, 1, 1)
    torch.testing.assert_close(first(net), state["conv1.weight"].flip(1) / std)


def test_both_passes_of_detectors(tmp_path: Path) -> None:
    state = models.resnet18(weights=None).state_dict()
    net = build_detector(
        "detectors", 2, settings={"backbone": "resnet18", "neck.width": 16, "roi.width": 16}
    )
    load_backbone_file(net, write(tmp_path / "w.pth", state))
    for backbone in net.backbones:
        torch.testing.assert_close(backbone.conv1.standardized(), state["conv1.weight"])


class Trap:
    def __reduce__(self) -> tuple[Callable[..., object], tuple[str]]:
        return os.mkdir, ("trap",)


def _broken(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return state | {"features.0.0.weight": torch.full((16, 3, 3, 3), float("nan"))}


@pytest.mark.parametrize(
    ("file", "content", "words"),
    [
        ("gone.pth", None, "gone.pth: no such file"),
        ("gone.safetensors", None, "gone.safetensors: no such file"),
        ("text.safetensors", b"hello, world", "not a readable safetensors file"),
        ("text.pth", b"hello, world", "text.pth: not a"),
        ("trap.pth", {"x": Trap()}, "refused, nothing in it was run"),
        ("words.pth", {"x": "text"}, "holds no state dict"),
        ("nan.pth", _broken, "numbers that are not finite in features.0.0.weight"),
        (
            "other.pth",
            lambda state: models.resnet18(weights=None).state_dict(),
            "weights of another network than mobilenet_v3_small: 0 of its 201 tensors fit",
        ),
    ],
)
def test_refused(
    file: str,
    content: object,
    words: str,
    state: dict[str, Tensor],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / file
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        torch.save(content(state) if callable(content) else content, path)
    with pytest.raises(WeightsError) as caught:
        load_backbone_file(detector(), path)
    assert words in str(caught.value) and "\n" not in str(caught.value)
    assert not (tmp_path / "trap").exists()


def test_a_run_starts_from_the_file(state: dict[str, Tensor], tmp_path: Path) -> None:
    """Whatever `pretrained` says; the path stays out of what a weights file stores."""
    path = write(tmp_path / "w.safetensors", state)
    given = SMALL | {"model": "fcos_p2", "data": "demo", "backbone": NAME, "pretrained": False}
    cfg = load_config(given | {"backbone.weights": str(path)}, mode="train")
    source = source_model(cfg, ["a", "b"])
    assert source.notes[0].startswith(f"{path}: 234 tensors")
    assert torch.equal(first(source.net), state["features.0.0.weight"])
    document = weights_metadata(source.config, ["a", "b"], 64, {}, {})
    assert document["model"]["backbone"]["name"] == NAME and str(path) not in str(document)


def test_what_is_known_before_the_data(tmp_path: Path) -> None:
    given = {"model": "fcos_p2", "data": "demo", "backbone": NAME}
    cfg = load_config(given | {"backbone.weights": str(tmp_path / "gone")}, mode="train")
    with pytest.raises(WeightsError, match="gone: no such file"):
        check_early(cfg, "train")
    path = tmp_path / "own.safetensors"
    net = detector()
    save_weights(path, net.state_dict(), weights_metadata(net.config, ["a", "b"], 64, {}, {}))
    given |= {"model": str(path), "backbone.weights": str(path)}
    with pytest.raises(ConfigError, match="has a backbone with weights already"):
        check_early(load_config(given, mode="train"), "train")


def test_the_command_line_says_it_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    command = ["train", "model=fcos_p2", "data=demo", f"backbone={NAME}"]
    assert main([*command, "backbone.weights=gone.pth"]) == 2
    assert main([*command, "backbone=timm/vit_tiny"]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert lines[0] == "error: gone.pth: no such file"
    assert lines[1].startswith("error: backbone.name=timm/vit_tiny: timm has no such network; did")
    assert len(lines) == 2 and not any(tmp_path.iterdir())


def test_torchvisions_own_loader(
    state: dict[str, Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the torch hub cache, where it would put what it downloads."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    cache = tmp_path / "hub" / "checkpoints"
    cache.mkdir(parents=True)
    url = models.get_model_weights(NAME).DEFAULT.url
    torch.save(state, cache / url.rpartition("/")[2])
    net = detector()
    assert load_pretrained_backbone(net)
    assert torch.equal(first(net), state["features.0.0.weight"])
    assert not next(net.backbone.parameters()).requires_grad


def test_without_weights_any_network_thaws(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    module = "rfla.models.backbones.torchvision_networks.imagenet_state"
    monkeypatch.setattr(module, lambda weights: None)
    net = detector()
    with caplog.at_level(logging.WARNING, logger="rfla"):
        assert not load_pretrained_backbone(net)
    assert [record.message for record in caplog.records] == [
        "no ImageNet weights for mobilenet_v3_small here (backbone.weights=FILE takes a file): "
        "random weights, nothing frozen, batch norm learns"
    ]
    assert all(parameter.requires_grad for parameter in net.parameters())


FROM_THE_HUB = """
import time
import timm, torch
from rfla.models import build_detector, load_pretrained_backbone
time.sleep = None  # the library of the hub waits between its tries
settings = {"backbone": "timm/NAME", "neck.width": 8, "head.width": 8, "head.depth": 0}
net = build_detector("fcos_p2", 2, settings=settings)
assert load_pretrained_backbone(net)
expected = torch.load("state.pth")
own = net.backbone.state_dict()
assert torch.equal(own["body.stages_3.blocks.1.gamma"], expected["stages.3.blocks.1.gamma"])
assert torch.equal(own["body.stem_0.weight"], expected["stem.0.weight"])
settings["backbone"] = "timm/convnext_femto"
assert not load_pretrained_backbone(build_detector("fcos_p2", 2, settings=settings))
"""


@pytest.mark.parametrize("hub", [{"HF_HUB_OFFLINE": "1"}, {"HF_ENDPOINT": "http://127.0.0.1:1"}])
def test_timms_own_loader(hub: dict[str, str], tmp_path: Path) -> None:
    """From the cache of the Hugging Face hub; of a network that is not there, none, at once."""
    import timm

    state = timm.create_model("convnext_atto").state_dict()
    torch.save(state, tmp_path / "state.pth")
    entry = timm.models.get_pretrained_cfg("convnext_atto").hf_hub_id
    repository = tmp_path / "hub" / f"models--{entry.replace('/', '--')}"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("0" * 40)
    snapshot = repository / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    save_file(state, snapshot / "model.safetensors")
    done = subprocess.run(
        [sys.executable, "-c", FROM_THE_HUB.replace("NAME", "convnext_atto")],
        cwd=tmp_path,
        env=os.environ | {"HF_HOME": str(tmp_path)} | hub,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


class _Nothing(BaseHTTPRequestHandler):
    def do_HEAD(self) -> None:
        self.send_error(404)

    def log_message(self, *args: object) -> None:
        pass


def test_reachable() -> None:
    """An answer is one, whatever it says; a port that nobody listens on is none."""
    with HTTPServer(("127.0.0.1", 0), _Nothing) as server:
        address = f"http://127.0.0.1:{server.server_port}"
        thread = Thread(target=server.handle_request)
        thread.start()
        assert reachable(address)
        thread.join()
    assert not reachable(address)

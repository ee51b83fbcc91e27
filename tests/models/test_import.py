"""MMDetection checkpoints: read without running anything, mapped whole or refused."""

import json
import os
import pickle
import zipfile

import numpy as np
import pytest
import torch

from rfla.errors import ConfigError, WeightsError
from rfla.models import build_detector
from rfla.models.mmdet import import_checkpoint, our_key, read_checkpoint
from rfla.models.weights import load_model

NAMES = ("airplane", "bridge", "storage-tank", "ship", "swimming-pool", "vehicle", "person", "wind-mill")
CONFIG = """model = dict(backbone=dict(style='caffe'), assigner=dict(type='HieAssigner'))
img_norm_cfg = dict(
    mean=[1.0, 2.0, 3.0], std=[1.0, 1.0, 1.0], to_rgb=False)"""


@pytest.fixture(scope="module")
def fcos_checkpoint(parity_dir, recipe, tmp_path_factory):
    entries = json.loads((parity_dir / "models" / "fcos_p2_rfla" / "state_dict.json").read_text())["entries"]
    state = recipe.recipe_state({entry[0]: tuple(entry[1]) for entry in entries})
    meta = {
        "mmdet_version": "2.20.0",
        "config": CONFIG,
        "CLASSES": NAMES,
        "epoch": 12,
        "hook_msgs": {"best_score": np.float64(0.16)},
    }
    path = tmp_path_factory.mktemp("official") / "epoch_12.pth"
    torch.save({"meta": meta, "state_dict": state, "optimizer": {"state": {}, "param_groups": [{"lr": 0.005}]}}, path)
    return path, state


def test_every_tensor_arrives(fcos_checkpoint, tmp_path):
    path, state = fcos_checkpoint
    line = import_checkpoint(path, "fcos_p2", tmp_path / "x.safetensors")
    assert "8 classes" in line
    net, metadata = load_model(tmp_path / "x.safetensors")
    assert tuple(metadata["names"]) == NAMES
    assert net.config.assigner.name == "rfla"
    assert net.config.normalize.mean == (1.0, 2.0, 3.0)
    assert net.config.normalize.channels == "bgr"
    ours = net.state_dict()
    assert len(ours) == len(state)
    for key, value in state.items():
        assert torch.equal(ours[our_key(key)], value), key


def test_a_wrong_model_is_refused_with_a_guess(fcos_checkpoint, tmp_path):
    with pytest.raises(WeightsError, match=r"they fit model=fcos_p2\).*unexpected") as caught:
        import_checkpoint(fcos_checkpoint[0], "fcos", tmp_path / "x.safetensors")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "x.safetensors").exists()


def test_a_partial_state_is_refused(fcos_checkpoint, tmp_path):
    state = dict(fcos_checkpoint[1])
    del state["bbox_head.conv_reg.weight"]
    torch.save({"state_dict": state, "meta": {"CLASSES": NAMES}}, tmp_path / "part.pth")
    with pytest.raises(WeightsError, match=r"1 missing.*head\.conv_reg\.weight"):
        import_checkpoint(tmp_path / "part.pth", "fcos_p2", tmp_path / "x.safetensors", assigner="rfla")


def test_names_are_counted(fcos_checkpoint, tmp_path):
    with pytest.raises(WeightsError, match="2 names for 8 classes"):
        import_checkpoint(fcos_checkpoint[0], "fcos_p2", tmp_path / "x.safetensors", names=["a", "b"])
    torch.save({"state_dict": fcos_checkpoint[1]}, tmp_path / "bare.pth")
    with pytest.raises(WeightsError, match="8 classes without names"):
        import_checkpoint(tmp_path / "bare.pth", "fcos_p2", tmp_path / "x.safetensors")


def test_the_file_to_write_has_its_ending(fcos_checkpoint, tmp_path):
    with pytest.raises(ConfigError, match="safetensors"):
        import_checkpoint(fcos_checkpoint[0], "fcos_p2", tmp_path / "x.pth")


class Malice:
    def __init__(self, flag):
        self.flag = flag

    def __reduce__(self):
        return os.system, (f"touch {self.flag}",)


@pytest.mark.parametrize("protocol", ["zip", "legacy", "bare pickle"])
def test_malice_does_not_run(tmp_path, protocol):
    flag, path = tmp_path / "ran", tmp_path / "evil.pth"
    content = {"state_dict": {"w": torch.zeros(1)}, "meta": Malice(flag)}
    if protocol == "bare pickle":
        path.write_bytes(pickle.dumps(content))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=protocol == "zip")
    with pytest.raises(WeightsError) as caught:
        import_checkpoint(path, "fcos", tmp_path / "x.safetensors")
    assert "\n" not in str(caught.value)
    assert not flag.exists()


def test_a_compressed_archive_is_refused(tmp_path):
    path = tmp_path / "bomb.pth"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", b"0" * 10_000_000)
    with pytest.raises(WeightsError, match="compressed"):
        read_checkpoint(path)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 not a zip", b"hello", bytes(1000)])
def test_rubbish(tmp_path, content):
    path = tmp_path / "x.pth"
    path.write_bytes(content)
    with pytest.raises(WeightsError) as caught:
        read_checkpoint(path)
    assert "\n" not in str(caught.value)


def test_a_giant_view_costs_nothing(tmp_path):
    """One stored number that claims to be 4 TB: its shape is refused before anything is copied."""
    torch.save(
        {"state_dict": {"bbox_head.conv_cls.weight": torch.zeros(1).expand(1000, 1000, 1000, 1000)}}, tmp_path / "x.pth"
    )
    with pytest.raises(WeightsError, match="names"):
        import_checkpoint(tmp_path / "x.pth", "fcos", tmp_path / "x.safetensors")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("record", "model"),
    [
        ("fcos_p3_rfla", "fcos"),
        ("retinanet_rfla", "retinanet"),
        ("autoassign_rfla", "autoassign"),
        ("faster_rfla", "faster_rcnn"),
        ("cascade_rfla", "cascade_rcnn"),
        ("detectors_rfla", "detectors"),
    ],
)
def test_all_detectors(parity_dir, recipe, tmp_path, record, model):
    entries = json.loads((parity_dir / "models" / record / "state_dict.json").read_text())["entries"]
    state = recipe.recipe_state({entry[0]: tuple(entry[1]) for entry in entries})
    torch.save({"state_dict": state, "meta": {"CLASSES": NAMES, "config": "HieAssigner"}}, tmp_path / "x.pth")
    import_checkpoint(tmp_path / "x.pth", model, tmp_path / "x.safetensors")
    net, _ = load_model(tmp_path / "x.safetensors")
    assert type(net) is type(build_detector(model))
    assert all(torch.equal(net.state_dict()[our_key(key)], value) for key, value in state.items())

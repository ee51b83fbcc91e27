"""MMDetection checkpoints: read without running anything, mapped whole or refused."""

import json
import os
import pickle
import zipfile
from collections import OrderedDict

import numpy as np
import pytest
import torch

from rfla.errors import ConfigError, DataError, WeightsError
from rfla.models import build_detector
from rfla.models.mmdet import import_checkpoint, our_key, read_checkpoint
from rfla.models.weights import load_model, read_metadata

NAMES = (
    "airplane",
    "bridge",
    "storage-tank",
    "ship",
    "swimming-pool",
    "vehicle",
    "person",
    "wind-mill",
)
CONFIG = """model = dict(backbone=dict(style='caffe'), assigner=dict(type='HieAssigner'))
img_norm_cfg = dict(
    mean=[1.0, 2.0, 3.0], std=[1.0, 1.0, 1.0], to_rgb=False)"""


@pytest.fixture(scope="module")
def fcos_checkpoint(parity_dir, recipe, tmp_path_factory):
    entries = json.loads((parity_dir / "models" / "fcos_p2_rfla" / "state_dict.json").read_text())[
        "entries"
    ]
    state = recipe.recipe_state({entry[0]: tuple(entry[1]) for entry in entries})
    meta = {
        "mmdet_version": "2.20.0",
        "config": CONFIG,
        "CLASSES": NAMES,
        "epoch": 12,
        "hook_msgs": {"best_score": np.float64(0.16)},
    }
    path = tmp_path_factory.mktemp("official") / "epoch_12.pth"
    torch.save(
        {
            "meta": meta,
            "state_dict": state,
            "optimizer": {"state": {}, "param_groups": [{"lr": 0.005}]},
        },
        path,
    )
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
        import_checkpoint(
            tmp_path / "part.pth", "fcos_p2", tmp_path / "x.safetensors", assigner="rfla"
        )


def test_names_of_the_third_version(fcos_checkpoint, tmp_path):
    meta = {"dataset_meta": {"classes": tuple(NAMES)}}
    torch.save({"state_dict": fcos_checkpoint[1], "meta": meta}, tmp_path / "three.pth")
    out = tmp_path / "x.safetensors"
    import_checkpoint(tmp_path / "three.pth", "fcos_p2", out, assigner="rfla")
    assert read_metadata(out)["names"] == list(NAMES)


def test_names_are_counted(fcos_checkpoint, tmp_path):
    with pytest.raises(WeightsError, match="2 names for 8 classes"):
        import_checkpoint(
            fcos_checkpoint[0], "fcos_p2", tmp_path / "x.safetensors", names=["a", "b"]
        )
    with pytest.raises(WeightsError, match="classes of one name: a, a, b, c, d, e, f, g"):
        import_checkpoint(
            fcos_checkpoint[0], "fcos_p2", tmp_path / "x.safetensors", names=list("aabcdefg")
        )
    for bad, message in (("", "a class without a name"), ("x" * 5000, "a class name of 5,000")):
        with pytest.raises((DataError, WeightsError), match=message):
            import_checkpoint(
                fcos_checkpoint[0], "fcos_p2", tmp_path / "x.safetensors", names=[bad, *"abcdefg"]
            )
    torch.save({"state_dict": fcos_checkpoint[1]}, tmp_path / "bare.pth")
    with pytest.raises(WeightsError, match="8 classes without names"):
        import_checkpoint(tmp_path / "bare.pth", "fcos_p2", tmp_path / "x.safetensors")


def test_the_file_to_write_has_its_ending(fcos_checkpoint, tmp_path):
    with pytest.raises(ConfigError, match="safetensors"):
        import_checkpoint(fcos_checkpoint[0], "fcos_p2", tmp_path / "x.pth")


TINY = """detector: fcos
backbone: {name: resnet18}
neck: {width: 8, extra: on_output}
head: {width: 8, depth: 1}
"""


@pytest.fixture
def tiny(tmp_path):
    """A small model YAML and the weights of one in official names."""
    path = tmp_path / "tiny.yaml"
    path.write_text(TINY)

    def official(key):
        if key.startswith("neck."):
            return key.replace(".weight", ".conv.weight").replace(".bias", ".conv.bias")
        return key.replace("head.", "bbox_head.", 1) if key.startswith("head.") else key

    state = {
        official(key): value for key, value in build_detector(str(path), 8).state_dict().items()
    }
    return str(path), {
        key: value for key, value in state.items() if "num_batches_tracked" not in key
    }


META = {
    "mmdet_version": "2.20.0",
    "config": CONFIG
    + """
assigner=dict(type='HieAssigner', assign_metric='wd', topk=[2, 1], ratio=0.9)
dict(type='Resize', img_scale=(1024, 1024), keep_ratio=True)""",
    "CLASSES": NAMES,
    "PALETTE": np.zeros((8, 3), dtype=np.uint8),
    "seed": np.int64(3),
    "hook_msgs": OrderedDict(
        best_score=np.float32(0.2), flag=np.bool_(True), name=np.str_("x"), all=np.array([1.5])
    ),
}


def test_forms_of_a_checkpoint(tiny, tmp_path):
    """numpy in meta, a wrapped model, EMA copies, parameters and halves."""
    model, state = tiny
    wrapped = OrderedDict(
        ("module." + key, torch.nn.Parameter(value.half())) for key, value in state.items()
    )
    averages = {"module.ema_" + key.replace(".", "_"): value for key, value in state.items()}
    content = {
        "meta": META,
        "state_dict": wrapped | averages,
        "optimizer": {"state": {0: {"step": 3}}},
    }
    torch.save(content, tmp_path / "x.pth")
    import_checkpoint(tmp_path / "x.pth", model, tmp_path / "x.safetensors")
    net, metadata = load_model(tmp_path / "x.safetensors")
    assert metadata["imgsz"] == 1024
    assert (net.config.assigner.distance, net.config.assigner.topk) == ("wd", (2, 1))
    for key, value in state.items():
        assert torch.equal(net.state_dict()[our_key(key)], value.half().float()), key


def test_an_imported_file_predicts(tiny, tmp_path):
    from rfla import RFLA

    model, state = tiny
    torch.save({"meta": META, "state_dict": state}, tmp_path / "x.pth")
    import_checkpoint(tmp_path / "x.pth", model, tmp_path / "x.safetensors")
    picture = np.zeros((64, 96, 3), dtype=np.uint8)
    (result,) = RFLA(str(tmp_path / "x.safetensors")).predict(
        picture, conf=0.0, max_det=5, imgsz=96, save=False
    )
    assert len(result.boxes.conf) == 5
    assert set(result.names) <= set(NAMES) or tuple(result.names.values()) == NAMES


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (torch.zeros(8).to_sparse(), "asks for torch._utils._rebuild_sparse_tensor"),
        (torch.zeros(8, dtype=torch.int32), "mistyped.*int32"),
        (torch.zeros(8, dtype=torch.complex64), "asks for torch.ComplexFloatStorage"),
        (torch.full((8,), torch.nan), "not finite in neck.fpn_convs.0.bias"),
        ("text", "more than tensors"),
    ],
)
def test_tensors_that_are_no_weights(tiny, tmp_path, value, message):
    model, state = tiny
    torch.save(
        {"meta": META, "state_dict": state | {"neck.fpn_convs.0.conv.bias": value}},
        tmp_path / "x.pth",
    )
    with pytest.raises(WeightsError, match=message):
        import_checkpoint(tmp_path / "x.pth", model, tmp_path / "x.safetensors")
    assert not (tmp_path / "x.safetensors").exists()


def test_what_is_wrong_is_named_with_its_place(tiny, tmp_path):
    """A bad number in the configuration inside the file, and weights in the place of a model."""
    model, state = tiny
    text = "img_norm_cfg = dict(mean=[0, 0, 0], std=[0, 0, 0], to_rgb=True)\n" + META["config"]
    torch.save({"meta": META | {"config": text}, "state_dict": state}, tmp_path / "x.pth")
    with pytest.raises(WeightsError, match=r"x\.pth: the configuration in it: normalize\.std"):
        import_checkpoint(tmp_path / "x.pth", model, tmp_path / "x.safetensors")
    with pytest.raises(ConfigError, match=r"model=y\.safetensors: a zoo name or a model YAML"):
        import_checkpoint(tmp_path / "x.pth", "y.safetensors", tmp_path / "x.safetensors")
    assert not (tmp_path / "x.safetensors").exists()


def test_names_cannot_steer_a_terminal(tiny, tmp_path):
    model, state = tiny
    torch.save({"meta": META, "state_dict": state}, tmp_path / "x.pth")
    names = ["red\x1b[31m", *NAMES[1:7], "two\nlines"]
    line = import_checkpoint(tmp_path / "x.pth", model, tmp_path / "x.safetensors", names=names)
    assert line.isprintable()
    assert load_model(tmp_path / "x.safetensors")[1]["names"][-1] == r"two\nlines"


class Malice:
    def __init__(self, function, *args):
        self.function, self.args = function, args

    def __reduce__(self):
        return self.function, self.args


@pytest.mark.parametrize("protocol", ["zip", "old format", "bare pickle"])
@pytest.mark.parametrize(
    ("function", "args", "message"),
    [
        (os.system, ("touch ran",), "system"),
        (eval, ("open('ran', 'w')",), "eval"),
        (np.load, ("x.npy",), "numpy.load"),
        (np.ndarray, ((10**15,),), "numpy.ndarray"),  # 7 PiB
        (bytearray, (10**12,), "bytearray"),
        (torch.Tensor, (10**12,), "torch.Tensor"),
    ],
)
def test_malice_does_not_run(tmp_path, monkeypatch, recwarn, protocol, function, args, message):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "evil.pth"
    content = {"state_dict": {"w": torch.zeros(1)}, "meta": Malice(function, *args)}
    if protocol == "bare pickle":
        path.write_bytes(pickle.dumps(content))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=protocol == "zip")
    with pytest.raises(WeightsError) as caught:
        import_checkpoint(path, "fcos", tmp_path / "x.safetensors")
    assert "\n" not in str(caught.value)
    assert "weights_only" not in str(caught.value)  # torch's advice how to run it anyway
    assert (message if protocol == "zip" else "old format") in str(caught.value)
    assert [file.name for file in tmp_path.iterdir()] == ["evil.pth"]
    assert not recwarn.list


def test_a_compressed_archive_is_refused(tmp_path):
    path = tmp_path / "bomb.pth"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", b"0" * 10_000_000)
    with pytest.raises(WeightsError, match="compressed"):
        read_checkpoint(path)


@pytest.mark.parametrize(
    "content", [b"", b"PK\x03\x04 not a zip", b"hello", bytes(1000), b"PK\x05\x06" + bytes(18)]
)
def test_rubbish(tmp_path, content):
    path = tmp_path / "x.pth"
    path.write_bytes(content)
    with pytest.raises(WeightsError) as caught:
        read_checkpoint(path)
    assert "\n" not in str(caught.value)


def test_a_directory_and_a_truncated_file(tiny, tmp_path):
    with pytest.raises(WeightsError, match="is a directory"):
        read_checkpoint(tmp_path)
    torch.save({"state_dict": tiny[1]}, tmp_path / "x.pth")
    content = (tmp_path / "x.pth").read_bytes()
    for cut in (100, len(content) // 2, len(content) - 30):
        (tmp_path / "x.pth").write_bytes(content[:cut])
        with pytest.raises(WeightsError, match=r"not a readable checkpoint|refused"):
            read_checkpoint(tmp_path / "x.pth")


def test_a_giant_view_costs_nothing(tmp_path):
    """One stored number that claims to be 4 TB is refused before anything is copied."""
    torch.save(
        {
            "state_dict": {
                "bbox_head.conv_cls.weight": torch.zeros(1).expand(1000, 1000, 1000, 1000)
            }
        },
        tmp_path / "x.pth",
    )
    with pytest.raises(WeightsError, match=r"shape \(1000, 1000, 1000, 1000\) over 1 stored"):
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
    entries = json.loads((parity_dir / "models" / record / "state_dict.json").read_text())[
        "entries"
    ]
    state = recipe.recipe_state({entry[0]: tuple(entry[1]) for entry in entries})
    torch.save(
        {"state_dict": state, "meta": {"CLASSES": NAMES, "config": "HieAssigner"}},
        tmp_path / "x.pth",
    )
    import_checkpoint(tmp_path / "x.pth", model, tmp_path / "x.safetensors")
    net, _ = load_model(tmp_path / "x.safetensors")
    assert type(net) is type(build_detector(model))
    assert all(torch.equal(net.state_dict()[our_key(key)], value) for key, value in state.items())

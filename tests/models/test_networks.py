"""Every backbone of torchvision, and some of timm: built, trained, saved, read again, frozen."""

import gc
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torchvision import models
from torchvision.models.feature_extraction import create_feature_extractor

from rfla.cfg import model_config
from rfla.cfg.backbone_names import BACKBONE_FAMILIES
from rfla.cfg.backbones import pixel_statistics
from rfla.cfg.model_schema import BACKBONES, BackboneConfig
from rfla.engine.model_source import weights_metadata
from rfla.errors import ConfigError
from rfla.models import build_detector
from rfla.models.backbones import timm_networks
from rfla.models.backbones.build import build_backbone
from rfla.models.backbones.match import match
from rfla.models.weights import load_model, read_metadata, save_weights

SMALLEST = [
    *("resnet18", "resnext50_32x4d", "regnet_x_400mf", "convnext_tiny", "efficientnet_b0"),
    *("mobilenet_v3_small", "swin_t", "swin_v2_t"),
]
TIMM = [
    "timm/convnext_atto",
    "timm/tf_efficientnet_lite0",
    "timm/swin_tiny_patch4_window7_224",
    "timm/pvt_v2_b0",
]
SOME_OF_TIMM = [  # one of each way in which timm makes features
    *(
        "timm/hrnet_w18_small",
        "timm/dla34",
        "timm/vgg11",
        "timm/densenet121",
        "timm/mambaout_femto",
    ),
    *("timm/mobilenetv4_conv_small", "timm/hgnetv2_b0", "timm/legacy_senet154"),
    *(
        "timm/repvit_m0_9",
        "timm/xception41",
        "timm/nextvit_small",
        "timm/swinv2_tiny_window8_256",
        "timm/nfnet_f0",
    ),
]
EVERY = [
    *SMALLEST,
    *TIMM,
    *(pytest.param(n, marks=pytest.mark.slow) for n in BACKBONES if n not in SMALLEST),
    *(pytest.param(name, marks=pytest.mark.slow) for name in SOME_OF_TIMM),
]
NODES = {  # of torchvision's own feature extractor, by hand
    "regnet_x_400mf": ["stem", *(f"trunk_output.block{block}" for block in (1, 2, 3, 4))],
    "convnext_tiny": [f"features.{part}" for part in (1, 3, 5, 7)],
    "efficientnet_b0": [f"features.{part}" for part in (1, 2, 3, 5, 7)],
    "mobilenet_v3_small": [f"features.{part}" for part in (0, 1, 3, 8, 11)],
    "swin_t": [f"features.{part}" for part in (1, 3, 5, 7)],
    "swin_v2_t": [f"features.{part}" for part in (1, 3, 5, 7)],
}
SMALL = {
    "neck.width": 8,
    "head.width": 8,
    "head.depth": 0,
    "backbone.frozen_stages": -1,
    "backbone.norm_trainable": True,
}
TARGET = {"boxes": torch.tensor([[8.0, 8, 20, 24]]), "labels": torch.tensor([1])}


@pytest.mark.parametrize("name", EVERY)
def test_a_backbone_learns_and_is_read_again_from_its_file(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = build_detector("fcos_p2", 2, settings=SMALL | {"backbone": name})
    images = torch.randn(2, 3, 64, 96)
    maps = net.eval().backbone(images)
    strides = net.backbone.strides
    assert strides[-4:] == [4, 8, 16, 32] and strides[:-4] in ([], [2])
    assert [tuple(each.shape) for each in maps] == [
        (2, channels, 64 // stride, 96 // stride)
        for channels, stride in zip(net.backbone.channels, strides, strict=True)
    ]
    optimizer = torch.optim.SGD(net.parameters(), lr=1e-3)
    for _ in range(2):
        optimizer.zero_grad()
        sum(net.train()(images, [TARGET, TARGET]).values()).backward()
        # DDP waits for every parameter: none may be beside the path to the maps
        assert [key for key, p in net.named_parameters() if p.grad is None] == []
        assert all(p.grad.isfinite().all() for p in net.parameters())
        optimizer.step()
    path = tmp_path / "net.safetensors"
    save_weights(path, net.state_dict(), weights_metadata(net.config, ["a", "b"], 64, {}, {}))
    assert read_metadata(path)["model"]["backbone"]["name"] == name
    again, _ = load_model(path)
    path.unlink()  # up to 800 MB
    state = again.state_dict()
    assert all(torch.equal(value, state[key]) for key, value in net.state_dict().items())
    del net, again, state, optimizer
    gc.collect()


def test_every_network_of_these_families_is_listed() -> None:
    families = ("resnet", "resnext", "wide", "regnet", "convnext", "efficientnet", "mobilenet_v3")
    known = models.list_models(module=models)
    wanted = {name for name in known if name.startswith((*families, "swin"))}
    assert set(BACKBONES) == wanted - {"regnet_y_128gf"}  # 645 M parameters, more than any detector


@pytest.mark.parametrize("name", BACKBONES)
def test_the_pixels_are_those_of_the_weights(name: str) -> None:
    transforms = models.get_model_weights(name).DEFAULT.transforms()
    mean, std = pixel_statistics(name)
    assert mean == pytest.approx([255 * value for value in transforms.mean])
    assert std == pytest.approx([255 * value for value in transforms.std])


@pytest.mark.parametrize("name", NODES)
def test_the_maps_equal_those_of_torchvisions_extractor(name: str) -> None:
    torch.manual_seed(0)
    whole = models.get_model(name, weights=None).eval()
    backbone = build_backbone(BackboneConfig(name=name)).eval()
    found = match(backbone, whole.state_dict(), backbone.added)
    assert not found.missing and not found.misshaped
    assert {key.split(".")[0] for key in found.unused} <= {"classifier", "head", "fc", "norm"} | (
        {"features"} if name.startswith(("eff", "mob")) else set()  # the convolution before pooling
    )
    backbone.load_state_dict(found.fitting)
    images = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        expected = create_feature_extractor(whole, NODES[name])(images)
        for own, node in zip(backbone(images), NODES[name], strict=True):
            theirs: Tensor = expected[node]
            theirs = theirs.permute(0, 3, 1, 2) if name.startswith("swin") else theirs
            torch.testing.assert_close(own, theirs, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("name", "stages", "first_that_learns"),
    [
        ("convnext_tiny", -1, "0.0.weight"),
        ("convnext_tiny", 0, "1.0.layer_scale"),
        ("convnext_tiny", 1, "2.0.weight"),
        ("convnext_tiny", 3, "6.0.weight"),
        ("efficientnet_b0", 0, "2.0.block.0.0.weight"),  # features.1 makes the map of stride 2
        ("regnet_x_400mf", 1, "block2.block2-0.proj.0.weight"),
        ("swin_t", 2, "4.reduction.weight"),
        ("timm/convnext_atto", 0, "stages_0.blocks.0.gamma"),
        ("timm/convnext_atto", 1, "stages_1.downsample.0.weight"),
        ("timm/tf_efficientnet_lite0", 1, "blocks.2.0.conv_pw.weight"),
        ("timm/tf_efficientnet_lite0", 4, None),
    ],
)
def test_what_is_frozen(name: str, stages: int, first_that_learns: str | None) -> None:
    backbone = build_backbone(BackboneConfig(name=name, frozen_stages=stages)).train()
    learning = [key for key, p in backbone.body.named_parameters() if p.requires_grad]
    assert learning[:1] == ([] if first_that_learns is None else [first_that_learns])
    for module in backbone.frozen_modules():
        assert not any(each.training for each in module.modules())
    backbone.thaw()
    assert all(p.requires_grad for p in backbone.parameters())
    assert all(module.training for module in backbone.modules())


def test_batch_norm_of_any_network_can_be_kept() -> None:
    section = BackboneConfig(name="timm/tf_efficientnet_lite0", norm_trainable=False)
    backbone = build_backbone(section).train()
    norms = [module for module in backbone.modules() if isinstance(module, nn.BatchNorm2d)]
    assert len(norms) == 48
    assert not any(norm.training or norm.weight.requires_grad for norm in norms)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (
            {"backbone": "convnext_tny"},
            "must be a name of a network in docs/models.md, or",
        ),
        ({"backbone": "convnext_tny"}, "did you mean 'convnext_tiny'"),
        ({"backbone": "convnext_tiny", "backbone.frozen_stages": 5}, "from -1 to 4"),
        ({"backbone": "timm/convnext_ato"}, "no such network; did you mean 'timm/convnext_atto'"),
        (
            {"backbone": "timm/convnext_atto.d2_in1"},
            "no such weights of convnext_atto; did",
        ),
        ({"backbone": "timm/hf-hub:some/body"}, "timm has no such network"),
        ({"backbone": "timm/vit_tiny_patch16_224"}, "its maps have the strides 16, and 8, 16, 32"),
        ({"backbone": "timm/maxvit_nano_rw_256"}, "was made for images of 256 x 256 px"),
        ({"backbone": "timm/hrnet_w18_small"}, "give backbone.frozen_stages=-1"),
        (
            {"backbone": "swin_t", "assigner.fields": "traced"},
            "fields of swin_t are unbounded",
        ),
    ],
)
def test_what_cannot_be_built_is_said_in_a_line(settings: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        build_detector("fcos_p2", 2, settings=settings)
    assert words in str(caught.value) and "\n" not in str(caught.value)


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    timm_networks._plan.cache_clear()
    monkeypatch.setitem(__import__("sys").modules, "timm", None)
    with pytest.raises(ConfigError, match=r"timm is not installed; .*pip install '.\[timm\]'"):
        build_detector("fcos_p2", 2, settings={"backbone": "timm/convnext_atto"})


def test_another_backbone_brings_its_own_pixels() -> None:
    """The zoo's FCOS wants BGR with the mean taken off, for the weights of its ResNet."""

    def pixels(**settings: object) -> tuple[object, ...]:
        normalize = model_config("fcos_p2", settings=settings).normalize
        return normalize.mean, normalize.std, normalize.channels

    caffe = ((102.9801, 115.9465, 122.7717), (1.0, 1.0, 1.0), "bgr")
    half = (127.5, 127.5, 127.5)
    assert pixels() == pixels(backbone="resnext50_32x4d") == caffe
    assert pixels(backbone="swin_t")[0] == (123.675, 116.28, 103.53)
    assert pixels(backbone="swin_t")[2] == "rgb"
    assert pixels(backbone="timm/tf_efficientnet_lite0") == (half, half, "rgb")
    own = {"normalize.mean": [1, 2, 3], "backbone": "timm/tf_efficientnet_lite0"}
    assert pixels(**own) == ((1.0, 2.0, 3.0), half, "rgb")


def test_a_model_yaml_with_a_backbone_has_its_pixels_too(tmp_path: Path) -> None:
    path = tmp_path / "own.yaml"
    path.write_text("detector: fcos\nbackbone: {name: efficientnet_v2_l}\n")
    assert model_config(str(path)).normalize.mean == (127.5, 127.5, 127.5)
    assert model_config(str(path), settings={"backbone": "resnet18"}).normalize.mean == (
        (123.675, 116.28, 103.53)
    )
    path.write_text(path.read_text() + "normalize: {mean: [1, 2, 3]}\n")
    assert model_config(str(path)).normalize.mean == (1.0, 2.0, 3.0)
    path.write_text("detector: fcos\nbackbone: {name: resnet18, weights: /etc/passwd}\n")
    with pytest.raises(ConfigError, match=r"weights=/etc/passwd cannot be set by a model"):
        model_config(str(path))


def test_families_have_a_member_here() -> None:
    """The Wide ResNets alone are slow: ResNets of 67 M parameters and more, by the same code."""
    absent = [name for name, names in BACKBONE_FAMILIES.items() if not set(SMALLEST) & set(names)]
    assert absent == ["Wide ResNet"]

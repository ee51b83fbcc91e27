"""The parts of DetectoRS: standardised and switchable convolution, ASPP, the recursive pyramid."""

import pytest
import torch
from torch import nn

from rfla.models import build_detector
from rfla.models.backbones import resnet
from rfla.models.backbones.detectors_resnet import DetectorsResNet
from rfla.models.backbones.pretrained import IMAGENET_STD
from rfla.models.backbones.resnet import ResNet
from rfla.models.backbones.sac import StandardizedConv2d, SwitchableConv2d
from rfla.models.necks.rfp import ASPP, RFP


@pytest.mark.parametrize("case_id", ["aws_s1", "aws_s2", "sac_s1", "sac_s2"])
def test_equals_the_official_convolution(parity, case_id):
    manifest, tensors = parity("components")
    case = next(case for case in manifest["cases"] if case["id"] == case_id)
    args = case["args"]
    weight = tensors[case["state"]["weight"]]
    outputs, inputs = weight.shape[:2]
    plain = nn.Conv2d(
        inputs, outputs, args["kernel_size"], args["stride"], args["padding"], bias=False
    )
    layer = (SwitchableConv2d if "switch.weight" in case["state"] else StandardizedConv2d)(plain)
    state = {key: tensors[name] for key, name in case["state"].items()}
    derived = {
        key: value for key, value in state.items() if key not in ("weight_gamma", "weight_beta")
    }
    layer.load_state_dict(derived)  # strict: deviation and mean are taken from the weight
    torch.testing.assert_close(layer.weight_gamma, state["weight_gamma"])
    torch.testing.assert_close(layer.weight_beta, state["weight_beta"])
    with torch.no_grad():
        torch.testing.assert_close(
            layer(tensors[case["input"]]), tensors[case["out"]], rtol=1e-4, atol=1e-4
        )
        layer.weight_gamma *= 1.3
        layer.weight_beta += 0.05
        found = layer(tensors[case["input"]])
        torch.testing.assert_close(
            found, tensors[case["out_gamma_x1.3_beta_plus_0.05"]], rtol=1e-4, atol=1e-4
        )


def test_standardized_weights_ignore_scale_and_shift():
    """gamma 1, beta 0: filters have mean 0 and deviation 1 whatever the weight's own are."""
    layer = StandardizedConv2d(nn.Conv2d(3, 4, 3, bias=False))
    before = layer.standardized()
    torch.testing.assert_close(before.flatten(1).mean(dim=1), torch.zeros(4), atol=1e-6, rtol=0)
    with torch.no_grad():
        layer.weight.mul_(5).add_(2)
    torch.testing.assert_close(layer.standardized(), before, rtol=1e-2, atol=1e-2)


def test_a_plain_start_computes_the_plain_convolution():
    torch.manual_seed(0)
    plain = nn.Conv2d(4, 6, 3, stride=2, padding=1, bias=False)
    layer = SwitchableConv2d(nn.Conv2d(4, 6, 3, stride=2, padding=1, bias=False))
    layer.load_state_dict(plain.state_dict(), strict=False)
    features = torch.randn(2, 4, 9, 7)
    torch.testing.assert_close(layer.start_plain()(features), plain(features), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("size", [1, 2, 3])
def test_maps_of_few_cells(size):
    layer = SwitchableConv2d(nn.Conv2d(2, 3, 3, padding=1, bias=False))
    assert layer(torch.randn(1, 2, size, size)).shape == (1, 3, size, size)


@pytest.mark.parametrize("offset", [1e5, -1e30, float("inf"), float("nan")])
def test_offsets_of_a_diverged_network_point_outside(offset):
    """Out of the map there is nothing, so each branch is zero: what is left is the context's bias.

    The operator itself reads where NaN or 1e30 happens to point, and ends the process.
    """
    layer = SwitchableConv2d(nn.Conv2d(2, 3, 3, padding=1, bias=False)).start_plain()
    nn.init.constant_(layer.post_context.bias, 7.0)
    for convolution in (layer.offset_s, layer.offset_l):
        nn.init.constant_(convolution.bias, offset)
    assert layer(torch.randn(1, 2, 6, 6)).eq(7).all()


def test_equals_the_official_aspp(parity):
    manifest, tensors = parity("components")
    case = next(case for case in manifest["cases"] if case["id"] == "aspp")
    layer = ASPP(6, 4)
    layer.load_state_dict({key: tensors[name] for key, name in case["state"].items()})
    torch.testing.assert_close(layer(tensors["aspp.x"]), tensors["aspp.out"], rtol=1e-5, atol=1e-5)


def test_the_fusion_starts_half_and_half():
    """rfp_weight starts at 0, so a recursive pyramid starts as the mean of its two passes."""
    torch.manual_seed(0)
    first, second = DetectorsResNet("resnet18"), DetectorsResNet("resnet18", feedback_channels=16)
    neck = RFP(first.channels, first.strides, [second], width=16).eval()
    images = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        once = neck(first.eval()(images))
        again = neck(second.eval()(images, [neck.rfp_aspp(level) for level in once[1:4]]))
        fused = neck.recurse(images, first(images))
    for a, b, c in zip(once, again, fused, strict=True):
        torch.testing.assert_close((a + b) / 2, c)


def test_one_pass_has_no_part_that_learns_nothing():
    """DistributedDataParallel awaits a gradient of every parameter."""
    settings = {"backbone": "resnet18", "neck.width": 16, "neck.steps": 1}
    net = build_detector("detectors", 2, settings=settings | {"backbone.frozen_stages": -1}).train()
    truth = {"boxes": torch.tensor([[8.0, 8, 24, 24]]), "labels": torch.tensor([1])}
    sum(net(torch.randn(1, 3, 64, 64), [truth]).values()).backward()
    learnt = [value for value in net.neck.parameters() if value.requires_grad]
    assert learnt and all(value.grad is not None for value in learnt)


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_imagenet_weights_start_as_the_plain_network(monkeypatch, name):
    """With torchvision's weights both passes compute what the plain ResNet does."""
    torch.manual_seed(0)
    plain = ResNet(name)
    for module in plain.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.0)
    monkeypatch.setattr(resnet, "imagenet_state", lambda weights: plain.state_dict())
    images = torch.randn(1, 3, 64, 64)
    expected = plain.eval()(images)
    for feedback_channels, feedback in (
        (None, ()),
        (8, [torch.randn(1, 8, side, side) for side in (8, 4, 2)]),
    ):
        net = DetectorsResNet(name, feedback_channels=feedback_channels)
        assert net.load_imagenet(IMAGENET_STD, "rgb")
        with torch.no_grad():
            for found, level in zip(net.eval()(images, feedback), expected, strict=True):
                torch.testing.assert_close(
                    found, level, rtol=1e-3, atol=1e-3 * float(level.detach().abs().max())
                )


def test_pretrained_weights_reach_every_backbone(monkeypatch):
    """The later backbone is loaded as well; without weights all of them are thawed."""
    from rfla.models import build_detector, load_pretrained_backbone

    plain = ResNet("resnet18")
    net = build_detector(
        "detectors", 2, settings={"backbone": "resnet18", "neck.width": 16, "roi.width": 16}
    )
    assert not net.neck.rfp_modules[0].conv1.weight.requires_grad
    monkeypatch.setattr(resnet, "imagenet_state", lambda weights: plain.state_dict())
    assert load_pretrained_backbone(net)
    for backbone in net.backbones:
        torch.testing.assert_close(backbone.conv1.weight, plain.conv1.weight)
        torch.testing.assert_close(backbone.conv1.standardized(), plain.conv1.weight)
    monkeypatch.setattr(resnet, "imagenet_state", lambda weights: None)
    assert not load_pretrained_backbone(net)
    assert all(parameter.requires_grad for parameter in net.parameters())


@pytest.mark.parametrize(
    "setting", [{"neck.start_level": 3}, {"neck.levels": 3}, {"neck.extra": "on_input"}]
)
def test_refuses_a_pyramid_that_it_cannot_feed_back(setting):
    from rfla.errors import ConfigError
    from rfla.models import build_detector

    with pytest.raises(ConfigError, match=r"neck\.start_level=2"):
        build_detector("detectors", 2, settings={"backbone": "resnet18"} | setting)

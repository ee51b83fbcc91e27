"""The backbone: stride place, freezing, thawing, and ImageNet weights for another input."""

import logging

import torch
from torch import nn

from rfla.models import build_detector, load_pretrained_backbone
from rfla.models.backbones.pretrained import IMAGENET, IMAGENET_STD, Pixels, fold_input_scale
from rfla.models.backbones.resnet import ResNet

SMALL = {"backbone": "resnet18", "neck.width": 8, "head.width": 8, "head.depth": 0}


def test_stride_place():
    """Both styles halve the map in the first block of stages 2 to 4.

    Caffe's in the 1x1 convolution.
    """
    for style, places in {"pytorch": ((1, 1), (2, 2)), "caffe": ((2, 2), (1, 1))}.items():
        block = ResNet("resnet50", style).layer2[0]
        assert (block.conv1.stride, block.conv2.stride) == places
    sizes = [
        tuple(level.shape[1:])
        for level in ResNet("resnet18", "caffe").eval()(torch.zeros(1, 3, 64, 96))
    ]
    assert sizes == [(64, 16, 24), (128, 8, 12), (256, 4, 6), (512, 2, 3)]


def test_frozen_stages_stay_in_evaluation_mode():
    net = ResNet("resnet18", frozen_stages=2, norm_eval=False).train()
    assert not net.bn1.training
    assert not net.layer2.training
    assert net.layer3.training
    assert {name.split(".")[0] for name, p in net.named_parameters() if p.requires_grad} == {
        "layer3",
        "layer4",
    }
    net = ResNet("resnet18", frozen_stages=-1, norm_eval=True, norm_trainable=False).train()
    norms = [module for module in net.modules() if isinstance(module, nn.BatchNorm2d)]
    assert not any(norm.training or norm.weight.requires_grad for norm in norms)
    assert net.conv1.weight.requires_grad


def test_the_first_convolution_for_bgr_without_std_computes_the_same():
    torch.manual_seed(0)
    conv = nn.Conv2d(3, 4, 3, bias=False)
    pixels = torch.rand(1, 3, 8, 8) * 255 - 120  # RGB with the mean taken off
    expected = conv(pixels / torch.tensor(IMAGENET_STD).view(3, 1, 1))
    fold_input_scale(conv, IMAGENET, Pixels((1.0, 1.0, 1.0), "bgr"))
    torch.testing.assert_close(conv(pixels.flip(1)), expected, rtol=1e-4, atol=1e-4)
    fold_input_scale(conv, Pixels((1.0, 1.0, 1.0), "bgr"), IMAGENET)
    torch.testing.assert_close(
        conv(pixels / torch.tensor(IMAGENET_STD).view(3, 1, 1)), expected, rtol=1e-4, atol=1e-4
    )
    unchanged = conv.weight.clone()
    fold_input_scale(conv, IMAGENET, IMAGENET)
    torch.testing.assert_close(conv.weight, unchanged)


def test_without_weights_everything_learns_and_one_line_says_so(monkeypatch, caplog):
    monkeypatch.setattr("rfla.models.backbones.resnet.imagenet_state", lambda weights: None)
    net = build_detector("fcos_p2", 2, settings=SMALL)
    with caplog.at_level(logging.WARNING, logger="rfla"):
        assert not load_pretrained_backbone(net)
    assert len(caplog.records) == 1
    assert all(parameter.requires_grad for parameter in net.parameters())
    assert net.train().backbone.bn1.training


def test_with_weights_they_arrive(monkeypatch):
    state = {
        key: value + 1
        for key, value in ResNet("resnet18").state_dict().items()
        if "num_batches" not in key
    }
    counters = {
        key: value for key, value in ResNet("resnet18").state_dict().items() if "num_batches" in key
    }
    monkeypatch.setattr(
        "rfla.models.backbones.resnet.imagenet_state", lambda weights: state | counters
    )
    net = build_detector(
        "retinanet", 2, settings={key: value for key, value in SMALL.items() if key != "head.depth"}
    )
    assert load_pretrained_backbone(net)
    torch.testing.assert_close(net.backbone.layer4[1].conv2.weight, state["layer4.1.conv2.weight"])
    torch.testing.assert_close(
        net.backbone.conv1.weight, state["conv1.weight"]
    )  # RGB with ImageNet's own std
    assert not net.backbone.conv1.weight.requires_grad

"""The form in which a CPU runs a network: batch norm folded, the same boxes."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from rfla.engine.model_source import load_trained
from rfla.models.backbones.sac import SwitchableConv2d
from rfla.predict.model import faster, fold_batch_norm, load_model


class Net(nn.Module):
    """One convolution and one batch norm, registered in this order."""

    def __init__(self, *, in_turn: bool) -> None:
        super().__init__()
        self.conv, self.norm, self.in_turn = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3), in_turn
        self.norm.running_var.fill_(9.0)

    def raw(self, images: Tensor) -> dict[str, list[Tensor]]:
        """Run them in turn, or side by side."""
        features = self.conv(images)
        return {"cls": [self.norm(features) if self.in_turn else features + self.norm(images)]}


def test_fold_by_hand() -> None:
    """(w x + b - mean) / sqrt(var + eps) * gamma + beta = 6 x - 2, for gamma 6, root 2."""
    conv, norm = nn.Conv2d(1, 1, 1), nn.BatchNorm2d(1, eps=1.0)
    for tensor, value in (
        (conv.weight, 2.0),
        (conv.bias, 1.0),
        (norm.running_mean, 4.0),
        (norm.running_var, 3.0),
        (norm.weight, 6.0),
        (norm.bias, 7.0),
    ):
        nn.init.constant_(tensor, value)
    net = nn.Sequential(conv, norm).eval()
    assert fold_batch_norm(net) == 1
    assert (net[0].weight.item(), net[0].bias.item()) == (6.0, -2.0)
    assert isinstance(net[1], nn.Identity)


@pytest.mark.parametrize(
    "net",
    [
        nn.Sequential(nn.BatchNorm2d(2), nn.Conv2d(2, 2, 1)),  # the other way round
        nn.Sequential(nn.Conv2d(2, 2, 1), nn.ReLU(), nn.BatchNorm2d(2)),
        nn.Sequential(nn.Conv2d(2, 2, 1), nn.GroupNorm(1, 2)),
        nn.Sequential(nn.Conv2d(2, 2, 1), nn.BatchNorm2d(2, track_running_stats=False)),
        nn.Sequential(
            SwitchableConv2d(nn.Conv2d(2, 2, 3)), nn.BatchNorm2d(2)
        ),  # more than its weight
    ],
)
def test_no_pair(net: nn.Module) -> None:
    """Nothing is folded that is not a plain convolution with plain batch norm behind it."""
    assert fold_batch_norm(net.eval()) == 0


@pytest.mark.parametrize("in_turn", [True, False])
def test_neighbours_that_are_no_pair(in_turn: bool) -> None:
    """Modules that stand side by side but do not run in turn are left as they are."""
    net = Net(in_turn=in_turn).eval()
    images = torch.rand(2, 3, 8, 8)
    expected = net.raw(images)["cls"][0]
    quick = faster(net)
    assert isinstance(quick.norm, nn.Identity) == in_turn
    torch.testing.assert_close(quick.raw(images)["cls"][0], expected, rtol=1e-5, atol=1e-5)


def test_same_detections_on_a_cpu(weights: Path) -> None:
    """Boxes of both forms differ by less than 1e-4 px; a GPU gets the network as it was trained."""
    config = load_trained(weights).config
    plain, quick, gpu = (
        load_trained(weights).net,
        load_model(str(weights), config, torch.device("cpu")).net,
        load_model(str(weights), config, torch.device("cuda")).net,
    )
    norms = [[type(part) for part in net.modules()].count(nn.BatchNorm2d) for net in (plain, quick)]
    assert norms == [20, 0]
    assert quick.backbone.conv1.weight.is_contiguous(memory_format=torch.channels_last)
    assert gpu.state_dict().keys() == plain.state_dict().keys()
    images = torch.randn(2, 3, 96, 64, generator=torch.Generator().manual_seed(1))
    sizes = [(96, 64), (90, 60)]
    with torch.inference_mode():
        both = zip(plain(images, image_sizes=sizes), quick(images, image_sizes=sizes), strict=True)
    for slow, fast in both:
        assert len(slow["scores"]) > 100
        assert torch.equal(slow["labels"], fast["labels"])
        torch.testing.assert_close(slow["boxes"], fast["boxes"], rtol=0, atol=1e-4)
        torch.testing.assert_close(slow["scores"], fast["scores"], rtol=0, atol=1e-5)

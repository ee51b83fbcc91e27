"""The ResNet of DetectoRS: standardised and switchable convolutions, and feedback.

A backbone of a later pass takes the pyramid of the pass before back in.

Shapes: B images, (H, W) px; Cn has stride 2**n. Source: arXiv 2006.02334, sections 3 and 4.
"""

from collections.abc import Mapping, Sequence
from typing import Self, cast

from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, Bottleneck

from rfla.cfg.backbone_names import BACKBONE_FAMILIES
from rfla.cfg.model_schema import BackboneConfig
from rfla.errors import ConfigError
from rfla.models.backbones.pretrained import Pixels
from rfla.models.backbones.resnet import ResNet
from rfla.models.backbones.sac import StandardizedConv2d, SwitchableConv2d
from rfla.names import Style

ADDED = (
    *("weight_gamma", "weight_beta", "weight_diff", "switch", "pre_context", "post_context"),
    *("offset_s", "offset_l", "rfp_conv"),
)


class DetectorsResNet(ResNet):
    """ResNet with standardised convolutions, in stages 2 to 4 with switchable second ones.

    Args:
        name: see `ResNet`.
        style: see `ResNet`.
        frozen_stages: see `ResNet`.
        norm_eval: see `ResNet`.
        norm_trainable: see `ResNet`.
        feedback_channels: channels of the maps that `forward` takes back in; None for the first
            pass, which takes none.
    """

    added = ADDED

    def __init__(
        self,
        name: str = "resnet50",
        style: Style = "pytorch",
        frozen_stages: int = 1,
        norm_eval: bool = True,
        norm_trainable: bool = True,
        feedback_channels: int | None = None,
    ) -> None:
        super().__init__(name, style, frozen_stages, norm_eval, norm_trainable)
        for block in self.later_blocks():
            block.conv2 = SwitchableConv2d(block.conv2)
        _standardize(self)
        self.takes_feedback = feedback_channels is not None
        if feedback_channels is not None:
            for stage, channels in zip(self.stages()[1:], self.channels[1:], strict=True):
                stage[0].rfp_conv = _feedback_conv(feedback_channels, channels)
        self.freeze()

    @classmethod
    def from_config(cls, section: BackboneConfig, feedback_channels: int | None = None) -> Self:
        """Build it with random weights.

        Raises:
            ConfigError: no ResNet is named so.
        """
        if section.name not in BACKBONE_FAMILIES["ResNet"]:
            raise ConfigError(
                f"backbone.name={section.name}: detectors takes one of "
                f"{', '.join(BACKBONE_FAMILIES['ResNet'])}"
            )
        return cls(
            section.name,
            section.style,
            section.frozen_stages,
            section.norm_eval,
            section.norm_trainable,
            feedback_channels,
        )

    def stages(self) -> list[nn.Sequential]:
        """Return the four stages."""
        return [self.layer1, self.layer2, self.layer3, self.layer4]

    def later_blocks(self) -> list[BasicBlock | Bottleneck]:
        """Return the blocks of stages 2 to 4."""
        return [block for stage in self.stages()[1:] for block in stage]

    def forward(self, images: Tensor, feedback: Sequence[Tensor] = ()) -> list[Tensor]:
        """Make C2, C3, C4, C5.

        Args:
            images: (B, 3, H, W).
            feedback: For the second pass three maps of the sizes of C3, C4, C5, added in the first
                block of each stage.
        """
        features = self.maxpool(self.relu(self.bn1(self.conv1(images))))
        outputs = []
        for index, stage in enumerate(self.stages()):
            if feedback and index > 0:
                features = _block_with_feedback(stage[0], features, feedback[index - 1])
                features = stage[1:](features)
            else:
                features = stage(features)
            outputs.append(features)
        return outputs

    def start_from(self, state: Mapping[str, Tensor], trained_on: Pixels, wanted: Pixels) -> None:
        """See `Backbone`; what a plain ResNet lacks starts without effect."""
        for block in self.later_blocks():
            block.conv2.start_plain()
        if self.takes_feedback:
            for stage in self.stages()[1:]:
                nn.init.zeros_(cast(nn.Conv2d, stage[0].rfp_conv).weight)
        super().start_from(state, trained_on, wanted)
        # folding has changed the filters: what standardising them starts from has to follow
        cast(StandardizedConv2d, self.conv1).keep_weight()


def _standardize(module: nn.Module) -> None:
    """Replace the plain convolutions of the network, not those inside a switchable one."""
    for name, child in module.named_children():
        if type(child) is nn.Conv2d:
            setattr(module, name, StandardizedConv2d(child))
        elif not isinstance(child, SwitchableConv2d):
            _standardize(child)


def _feedback_conv(inputs: int, outputs: int) -> nn.Conv2d:
    conv = nn.Conv2d(inputs, outputs, 1)
    nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
    nn.init.zeros_(cast(Tensor, conv.bias))
    return conv


def _block_with_feedback(
    block: BasicBlock | Bottleneck, features: Tensor, feedback: Tensor
) -> Tensor:
    """The forward of torchvision's block, with one more term in its last sum."""
    out = block.bn2(block.conv2(block.relu(block.bn1(block.conv1(features)))))
    if isinstance(block, Bottleneck):
        out = block.bn3(block.conv3(block.relu(out)))
    shortcut = features if block.downsample is None else block.downsample(features)
    summed: Tensor = block.relu(out + shortcut + block.rfp_conv(feedback))
    return summed

"""torchvision's ResNet, ResNeXt and Wide ResNet: C2 to C5, strides in either place, frozen stages.

Shapes: B images, (H, W) px; Cn has stride 2**n.
"""

from typing import Self

from torch import Tensor, nn
from torchvision.models import get_model, get_model_weights, resnet
from torchvision.models.resnet import Bottleneck

from rfla.cfg.model_schema import BackboneConfig
from rfla.models.backbones.backbone import Backbone
from rfla.models.backbones.pretrained import IMAGENET, Pretrained, imagenet_state
from rfla.names import Style

STEM_STAGE = 0
WIDTHS = (64, 128, 256, 512)  # of a basic block's output in each stage


class ResNet(Backbone):
    """ResNet without its classifier. Parameter names are torchvision's, which are the authors' too.

    Args:
        name: torchvision's: `resnet50`, `resnext50_32x4d`, `wide_resnet50_2`, ...
        style: where a bottleneck strides: `pytorch` in the 3x3 convolution, `caffe` in the first
            1x1.
        frozen_stages: -1 nothing, 0 the stem, n the stem and the first n stages.
        norm_eval: batch norm keeps its stored statistics while training.
        norm_trainable: scale and shift of batch norm learn.
    """

    def __init__(
        self,
        name: str = "resnet50",
        style: Style = "pytorch",
        frozen_stages: int = 1,
        norm_eval: bool = True,
        norm_trainable: bool = True,
    ) -> None:
        super().__init__()
        # Every block starts as the identity (arXiv 1706.02677), as the authors' code does without
        # pretrained weights.
        body: resnet.ResNet = get_model(name, weights=None, zero_init_residual=True)
        self.name, self.style = name, style
        self.conv1, self.bn1 = body.conv1, body.bn1
        self.relu, self.maxpool = body.relu, body.maxpool
        self.layer1, self.layer2 = body.layer1, body.layer2
        self.layer3, self.layer4 = body.layer3, body.layer4
        expansion = 4 if isinstance(body.layer1[0], Bottleneck) else 1
        self.channels = [width * expansion for width in WIDTHS]
        self.strides = [4, 8, 16, 32]
        if style == "caffe":
            _stride_in_first_convolution(self)
        self.frozen_stages = frozen_stages
        self.norm_eval, self.norm_trainable = norm_eval, norm_trainable
        self.freeze()

    @classmethod
    def from_config(cls, section: BackboneConfig) -> Self:
        """Build it with random weights."""
        return cls(
            section.name,
            section.style,
            section.frozen_stages,
            section.norm_eval,
            section.norm_trainable,
        )

    def forward(self, images: Tensor) -> list[Tensor]:
        """(B, 3, H, W) to C2, C3, C4, C5, each (B, channels, H / 2**n, W / 2**n); C1 if shown."""
        stem = self.relu(self.bn1(self.conv1(images)))
        features = self.maxpool(stem)
        outputs = [stem] if len(self.strides) > len(WIDTHS) else []
        for stage in (self.layer1, self.layer2, self.layer3, self.layer4):
            features = stage(features)
            outputs.append(features)
        return outputs

    def show_stem(self) -> None:
        """Give C1 too, what the first convolution makes before the pooling: stride 2."""
        self.channels = [self.conv1.out_channels, *self.channels]
        self.strides = [2, *self.strides]

    def imagenet_weights(self) -> Pretrained:
        """See `Backbone`: torchvision's, from the torch hub cache or the network."""
        state = imagenet_state(get_model_weights(self.name).DEFAULT)
        return None if state is None else (state, IMAGENET)

    def frozen_modules(self) -> list[nn.Module]:
        """The modules of the stem and of the stages that `frozen_stages` counts."""
        if self.frozen_stages < STEM_STAGE:
            return []
        stages = [self.layer1, self.layer2, self.layer3, self.layer4][: self.frozen_stages]
        return [self.conv1, self.bn1, *stages]


def _stride_in_first_convolution(backbone: nn.Module) -> None:
    for block in backbone.modules():
        if isinstance(block, Bottleneck):
            block.conv1.stride, block.conv2.stride = block.conv2.stride, block.conv1.stride

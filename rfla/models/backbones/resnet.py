"""torchvision's ResNet as a backbone: C2 to C5, both stride places, frozen stages, batch norm in evaluation mode.

Shapes: B images, (H, W) px; Cn has stride 2**n.
"""

from typing import Literal, Self

from torch import Tensor, nn
from torchvision.models import get_model, get_model_weights, resnet
from torchvision.models.resnet import Bottleneck

from rfla.models.backbones.pretrained import imagenet_state
from rfla.models.detector import Backbone

STEM_STAGE = 0


class ResNet(Backbone):
    """ResNet without its classifier. Parameter names are torchvision's, which are the authors' too.

    Args:
        name: `resnet18`, `resnet34`, `resnet50` or `resnet101`.
        style: where a bottleneck strides: `pytorch` in the 3x3 convolution, `caffe` in the first
            1x1.
        frozen_stages: -1 nothing, 0 the stem, n the stem and the first n stages.
        norm_eval: batch norm keeps its stored statistics while training.
        norm_trainable: scale and shift of batch norm learn.
    """

    def __init__(
        self,
        name: str = "resnet50",
        style: Literal["pytorch", "caffe"] = "pytorch",
        frozen_stages: int = 1,
        norm_eval: bool = True,
        norm_trainable: bool = True,
    ) -> None:
        super().__init__()
        # Every block starts as the identity (arXiv 1706.02677), as the authors' code does without
        # pretrained weights.
        body: resnet.ResNet = get_model(name, weights=None, zero_init_residual=True)
        self.name, self.style = name, style
        self.conv1, self.bn1, self.relu, self.maxpool = (
            body.conv1,
            body.bn1,
            body.relu,
            body.maxpool,
        )
        self.layer1, self.layer2, self.layer3, self.layer4 = (
            body.layer1,
            body.layer2,
            body.layer3,
            body.layer4,
        )
        self.channels = [
            width * (4 if isinstance(body.layer1[0], Bottleneck) else 1)
            for width in (64, 128, 256, 512)
        ]
        if style == "caffe":
            _stride_in_first_convolution(self)
        self.frozen_stages, self.norm_eval, self.norm_trainable = (
            frozen_stages,
            norm_eval,
            norm_trainable,
        )
        self._freeze()

    def forward(self, images: Tensor) -> list[Tensor]:
        """(B, 3, H, W) to C2, C3, C4, C5, each (B, channels, H / 2**n, W / 2**n)."""
        features = self.maxpool(self.relu(self.bn1(self.conv1(images))))
        outputs = []
        for stage in (self.layer1, self.layer2, self.layer3, self.layer4):
            features = stage(features)
            outputs.append(features)
        return outputs

    def train(self, mode: bool = True) -> Self:
        """Training mode, but for the frozen stages and, with `norm_eval`, for batch norm."""
        super().train(mode)
        for module in self._frozen_modules():
            module.eval()
        if self.norm_eval:
            for module in self._norms():
                module.eval()
        return self

    def thaw(self) -> None:
        """Let everything learn, batch norm and its statistics included: what random initial weights need."""
        self.frozen_stages, self.norm_eval, self.norm_trainable = -1, False, True
        for parameter in self.parameters():
            parameter.requires_grad_(True)
        self.train(self.training)

    def load_imagenet(self) -> bool:
        """Load torchvision's ImageNet weights from the torch hub cache or the network.

        False where neither has them.
        """
        state = imagenet_state(get_model_weights(self.name).DEFAULT)
        if state is None:
            return False
        self.load_state_dict(state, strict=True)
        return True

    def _norms(self) -> list[nn.Module]:
        return [module for module in self.modules() if isinstance(module, nn.BatchNorm2d)]

    def _frozen_modules(self) -> list[nn.Module]:
        if self.frozen_stages < STEM_STAGE:
            return []
        stages = [self.layer1, self.layer2, self.layer3, self.layer4][: self.frozen_stages]
        return [self.conv1, self.bn1, *stages]

    def _freeze(self) -> None:
        for module in self._frozen_modules() + ([] if self.norm_trainable else self._norms()):
            for parameter in module.parameters():
                parameter.requires_grad_(False)


def _stride_in_first_convolution(backbone: nn.Module) -> None:
    for block in backbone.modules():
        if isinstance(block, Bottleneck):
            block.conv1.stride, block.conv2.stride = block.conv2.stride, block.conv1.stride

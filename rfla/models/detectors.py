"""DetectoRS (arXiv 2006.02334): Cascade R-CNN that looks at the image twice.

Its backbone has switchable atrous convolutions (`backbones/sac.py`), and its pyramid goes back into
a second backbone (`necks/rfp.py`). `raw`, `assign`, `loss` and `decode` are those of
`cascade_rcnn.py`; the pyramid is here, and how it is built.

Shapes: B images, (H, W) px.
"""

from typing import Self, cast

from torch import Tensor

from rfla.cfg.model_schema import ModelConfig
from rfla.errors import ConfigError
from rfla.models.backbones.backbone import Backbone
from rfla.models.backbones.detectors_resnet import DetectorsResNet
from rfla.models.cascade_rcnn import CascadeRCNN
from rfla.models.heads.roi import RoIHead
from rfla.models.heads.rpn import RPNHead
from rfla.models.necks.rfp import RFP

FED_BACK = 4  # levels P2 to P5: the last three go back into the later backbones


class DetectoRS(CascadeRCNN):
    """Cascade R-CNN on a recursive pyramid.

    Args:
        backbone: of the first pass.
        neck: the recursive pyramid with the backbones of the later passes.
        rpn_head: levels to proposals.
        roi_head: a box head and a rule for each stage.
        num_classes: without background.
    """

    neck: RFP

    @classmethod
    def from_config(cls, config: ModelConfig, num_classes: int) -> Self:
        """Build it with `neck.steps` passes and random weights.

        Raises:
            ConfigError: the pyramid is not the one that the later passes take back in.
        """
        section = config.neck
        if section.start_level != 2 or section.levels < FED_BACK or section.extra != "pool":
            raise ConfigError(
                "detectors feeds P3 to P5 back: neck.start_level=2 neck.extra=pool "
                f"neck.levels>={FED_BACK}"
            )
        if section.bottom_up:
            raise ConfigError("neck.bottom_up=true: the recursive pyramid of detectors has none")
        backbone = DetectorsResNet.from_config(config.backbone)
        later = [
            DetectorsResNet.from_config(config.backbone, feedback_channels=section.width // 4 * 4)
            for _ in range(section.steps - 1)
        ]
        neck = RFP(backbone.channels, backbone.strides, later, section.width, section.levels)
        rpn_head = RPNHead.from_config(config, backbone, neck.strides)
        roi_head = RoIHead.from_config(config, neck.strides, num_classes)
        return cls(backbone, neck, rpn_head, roi_head, num_classes=num_classes)

    @property
    def backbones(self) -> list[Backbone]:
        """The backbone of every pass."""
        return [self.backbone, *(cast(Backbone, later) for later in self.neck.rfp_modules)]

    def pyramid(self, images: Tensor) -> list[Tensor]:
        """(B, 3, H, W) normalised images to the feature maps of all levels, finest first."""
        return self.neck.recurse(images, self.backbone(images))

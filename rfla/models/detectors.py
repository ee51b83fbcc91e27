"""DetectoRS (arXiv 2006.02334): Cascade R-CNN that looks at the image twice.

Its backbone has switchable atrous convolutions (`backbones/sac.py`), and its pyramid goes back into
a second backbone (`necks/rfp.py`). `forward`, `assign`, `loss` and `decode` are those of
`faster_rcnn.py`, the box heads those of Cascade R-CNN (`heads/roi.py`).
"""

from typing import cast

from torch import Tensor

from rfla.models.backbones.detectors_resnet import DetectorsResNet
from rfla.models.detector import Backbone
from rfla.models.faster_rcnn import FasterRCNN
from rfla.models.heads.roi import RoIHead
from rfla.models.heads.rpn import RPNHead
from rfla.models.necks.rfp import RFP


class DetectoRS(FasterRCNN):
    """Cascade R-CNN on a recursive pyramid.

    Args:
        backbone: of the first pass.
        neck: the recursive pyramid with the backbones of the later passes.
        rpn_head: levels to proposals.
        roi_head: the cascade.
        num_classes: without background.
    """

    neck: RFP

    def __init__(
        self,
        backbone: DetectorsResNet,
        neck: RFP,
        rpn_head: RPNHead,
        roi_head: RoIHead,
        *,
        num_classes: int,
    ) -> None:
        super().__init__(backbone, neck, rpn_head, roi_head, num_classes=num_classes)

    @property
    def backbones(self) -> list[Backbone]:
        """The backbone of every pass."""
        return [self.backbone, *(cast(Backbone, later) for later in self.neck.rfp_modules)]

    def pyramid(self, images: Tensor) -> list[Tensor]:
        """(B, 3, H, W) normalised images to the feature maps of all levels, finest first."""
        return self.neck.recurse(images, self.backbone(images))

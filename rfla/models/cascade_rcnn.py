"""Cascade R-CNN (arXiv 1712.00726): several box heads in a row, each on the boxes that the one before has moved.

`forward`, `assign`, `loss` and `decode` are those of `faster_rcnn.py`. The stages are in
`RoIHead.loss` and `RoIHead.decode` (`heads/roi.py`): each asks more IoU of a positive than the one
before and weighs less (`roi.stage_weights`).
"""

from rfla.models.faster_rcnn import FasterRCNN


class CascadeRCNN(FasterRCNN):
    """A Faster R-CNN whose RoI head has several stages."""

"""Cascade R-CNN (arXiv 1712.00726): several box heads in a row, each on the boxes that the one before has moved.

Its loss is `TwoStageDetector.loss` in `two_stage.py`: that of the RPN (`heads/rpn.py`) plus `RoIHead.loss`
(`heads/roi.py`), which goes through the stages, asks more IoU of a positive at each, and weights them by
`roi.stage_weights`.
"""

from rfla.models.two_stage import TwoStageDetector


class CascadeRCNN(TwoStageDetector):
    """A two-stage detector whose RoI head has several stages."""

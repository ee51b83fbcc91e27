"""Faster R-CNN (arXiv 1506.01497): one box head on the proposals of an RPN.

Its loss is `TwoStageDetector.loss` in `two_stage.py`: that of the RPN (`heads/rpn.py`) plus that of the box head
(`heads/roi.py`).
"""

from rfla.models.two_stage import TwoStageDetector


class FasterRCNN(TwoStageDetector):
    """A two-stage detector whose RoI head has one stage."""

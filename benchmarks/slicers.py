"""The slicers of others, called alike: SAHI and supervision.

They are no dependency: pip install sahi supervision (in an environment of their own).
"""

import importlib.util
from collections.abc import Callable
from typing import Any

import numpy as np

Array = np.ndarray
Found = tuple[Array, Array, Array]  # boxes (n, 4) xyxy px, scores (n,), labels (n,)
Detect = Callable[[Array], Found]


def is_installed(library: str) -> bool:
    """Whether a slicer is there; says so if not."""
    if importlib.util.find_spec(library) is None:
        print(f"{library} is not installed and left out")
        return False
    return True


def by_sahi(picture: Array, detect: Detect, side: int, overlap: float, **how: Any) -> Found:
    """Slice, detect and merge with SAHI: its own defaults but for what is given."""
    from sahi.models.base import DetectionModel
    from sahi.predict import get_sliced_prediction
    from sahi.prediction import ObjectPrediction

    class Model(DetectionModel):
        def load_model(self) -> None:
            self.model = detect

        def check_dependencies(self, *_: Any) -> None:
            pass

        def perform_inference(self, image: Array) -> None:
            self._original_predictions = detect(image)

        def _create_object_prediction_list_from_original_predictions(
            self, shift_amount_list: Any = None, full_shape_list: Any = None
        ) -> None:
            shift = shift_amount_list or [0, 0]
            shift = shift[0] if isinstance(shift[0], list | tuple) else shift
            shape = full_shape_list
            shape = shape[0] if shape and isinstance(shape[0], list | tuple) else shape
            self._object_prediction_list_per_image = [
                [
                    ObjectPrediction(
                        bbox=box,
                        category_id=label,
                        category_name=str(label),
                        score=score,
                        shift_amount=shift,
                        full_shape=shape,
                    )
                    for box, score, label in zip(
                        *(part.tolist() for part in self._original_predictions), strict=True
                    )
                ]
            ]

    model = Model(device="cpu", confidence_threshold=0.0, category_mapping={"0": "0"})
    result = get_sliced_prediction(
        picture,
        model,
        slice_height=side,
        slice_width=side,
        overlap_height_ratio=overlap,
        overlap_width_ratio=overlap,
        verbose=0,
        force_postprocess_type=True,
        **how,
    )
    every = result.object_prediction_list
    boxes = np.array([one.bbox.to_xyxy() for one in every]).reshape(-1, 4)
    labels = np.array([one.category.id for one in every], np.int64)
    return boxes, np.array([one.score.value for one in every]), labels


def by_supervision(picture: Array, detect: Detect, side: int, overlap: float, **how: Any) -> Found:
    """Slice, detect and merge with supervision's InferenceSlicer."""
    import supervision

    def call(crop: Array) -> Any:
        boxes, scores, labels = detect(crop)
        return supervision.Detections(xyxy=boxes, confidence=scores, class_id=labels)

    shared = int(side * overlap)
    slicer = supervision.InferenceSlicer(call, slice_wh=side, overlap_wh=shared, **how)
    found = slicer(picture)
    if not len(found):
        return np.zeros((0, 4)), np.zeros(0), np.zeros(0, np.int64)
    return found.xyxy, found.confidence, found.class_id

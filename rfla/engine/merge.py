"""Detections of several processes as those of one."""

from collections.abc import Sequence

import numpy as np

from rfla.metrics import Detections


def merge_detections(shards: Sequence[Detections]) -> Detections:
    """Join the detections of several processes in the order in which one process would have found them."""
    if len(shards) == 1:
        return shards[0]
    fields = ("image_index", "boxes", "scores", "labels")
    merged = [np.concatenate([getattr(shard, name) for shard in shards]) for name in fields]
    order = np.argsort(merged[0], kind="stable")  # each image is in one shard
    image_index, boxes, scores, labels = (values[order] for values in merged)
    return Detections(image_index, boxes, scores, labels)

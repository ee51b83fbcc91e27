"""What `peers.py` runs under a Python that has LibreYOLO: train and detect by its interface.

    python peers_libreyolo.py '{"model": "yolo9_p2-t", "data": ..., "images": [...], ...}'

Writes `detections.json` beside the weights: COCO entries with file names and class names.
"""

import json
import sys
from pathlib import Path

import torch
from libreyolo import LibreYOLO9P2
from peers_detections import write_detections

KEPT = {"conf": 0.02, "iou": 0.5, "max_det": 1500}

torch.set_num_threads(1)
given = json.loads(sys.argv[1])
images, size = given.pop("images"), given.pop("model").rpartition("-")[2]
model = LibreYOLO9P2(None, size=size, device=given["device"])
model.train(batch=4, workers=0, eval_interval=0, exist_ok=True, amp=False, **given)
run = Path(given["project"]) / given["name"]
trained = LibreYOLO9P2(str(run / "weights" / "last.pt"), size=size, device=given["device"])
write_detections(
    run / "detections.json",
    images,
    lambda image: trained.predict(image, imgsz=given["imgsz"], **KEPT),
)

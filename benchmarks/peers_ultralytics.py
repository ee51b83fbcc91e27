"""What `peers.py` runs under a Python that has Ultralytics: train and detect by its interface.

    python peers_ultralytics.py '{"model": ..., "data": ..., "epochs": ..., "images": [...], ...}'

Writes `detections.json` beside the weights: COCO entries with file names and class names.
"""

import json
import sys
from pathlib import Path

import torch
from peers_detections import write_detections
from ultralytics import YOLO

KEPT = {"conf": 0.02, "iou": 0.5, "max_det": 1500, "verbose": False}

torch.set_num_threads(1)
given = json.loads(sys.argv[1])
images, model = given.pop("images"), YOLO(given.pop("model"))
quiet = {"workers": 0, "plots": False, "val": False, "exist_ok": True, "pretrained": False}
model.train(batch=4, **quiet, **given)
run = Path(given["project"]) / given["name"]
trained = YOLO(run / "weights" / "last.pt")
how = {"imgsz": given["imgsz"], "device": given["device"], **KEPT}
write_detections(run / "detections.json", images, lambda image: trained.predict(image, **how)[0])

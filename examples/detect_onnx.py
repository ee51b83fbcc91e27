"""Detect with a file of `rfla export`: onnxruntime and OpenCV, nothing of rfla and no torch.

python examples/detect_onnx.py best.onnx image.png
"""

import json
import sys

import cv2
import numpy as np
import onnxruntime

session = onnxruntime.InferenceSession(sys.argv[1])
about = session.get_modelmeta().custom_metadata_map
names, imgsz, form = (json.loads(about[key]) for key in ("names", "imgsz", "export"))

# RGB, long side imgsz px, padded on the right and at the bottom to multiples of 32
image = cv2.cvtColor(cv2.imread(sys.argv[2]), cv2.COLOR_BGR2RGB)
height, width = image.shape[:2]
scale = imgsz / max(height, width)
new_width, new_height = max(1, int(width * scale + 0.5)), max(1, int(height * scale + 0.5))
padded_size = [max(-(-side // 32) * 32, form["least_side"]) for side in (new_height, new_width)]
padded = np.zeros((*padded_size, 3), np.uint8)
padded[:new_height, :new_width] = cv2.resize(image, (new_width, new_height))

feed = {
    "images": padded.transpose(2, 0, 1)[None],  # (1, 3, H, W)
    "image_sizes": np.array([[new_height, new_width]]),  # before padding
}
boxes, scores, labels, counts = session.run(None, feed)
boxes[0] /= np.array([new_width / width, new_height / height] * 2)  # px of the image itself
for box, score, label in list(zip(boxes[0], scores[0], labels[0], strict=True))[: counts[0]]:
    if score >= 0.25:
        print(names[label], f"{score:.3f}", *(f"{side:.1f}" for side in box))

"""Pure tensor mathematics: boxes, losses, suppression, normalisation."""

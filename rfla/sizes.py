"""The size ranges of AI-TOD, in px of the root of the area: the one place where they stand."""

LARGEST = 1e5
"""Side in px that no object reaches; the open end of the last range, as in COCO."""

AITOD_SIZES = (("vt", 0.0, 8.0), ("t", 8.0, 16.0), ("s", 16.0, 32.0), ("m", 32.0, LARGEST))
"""Very tiny, tiny, small and medium."""

AITOD_EDGES = tuple(low for _, low, _ in AITOD_SIZES[1:])
"""8, 16 and 32 px, between one range and the next."""

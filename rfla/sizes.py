"""Sizes that several parts share: ranges of AI-TOD, what a network pads to, the largest image."""

LARGEST = 1e5
"""Side in px that no object reaches; the open end of the last range, as in COCO."""

AITOD_SIZES = (("vt", 0.0, 8.0), ("t", 8.0, 16.0), ("s", 16.0, 32.0), ("m", 32.0, LARGEST))
"""Very tiny, tiny, small and medium."""

AITOD_EDGES = tuple(low for _, low, _ in AITOD_SIZES[1:])
"""8, 16 and 32 px, between one range and the next."""

SIZE_BINS = tuple(
    zip(
        ("below 2", "very tiny 2-8", "tiny 8-16", "small 16-32", "medium 32-64", "64 and above"),
        (0.0, 2.0, *AITOD_EDGES, 64.0),
        (2.0, *AITOD_EDGES, 64.0, float("inf")),
        strict=True,
    )
)
"""Name, smallest and largest root of the area in px: the ranges of AI-TOD, and what they cut."""

MAX_PIXELS = 178_956_970
"""Pixels of the largest image that is decoded, as Pillow has it: its RGB pixels fill half a GiB."""

STRIDE = 32
"""px: images are padded to a multiple of this, as the authors do; the stride of C5."""


def padded_side(side: int) -> int:
    """Return the height or width of an image after padding, px: the next multiple of `STRIDE`."""
    return -(-side // STRIDE) * STRIDE

"""Feature extractors: pixels to C2, C3, C4, C5."""

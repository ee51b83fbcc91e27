"""Feature pyramids: C2..C5 to P2..P7."""

"""`rfla convert format=aitod-xview`: the complete images of AI-TOD and AI-TOD-v2."""

from rfla.tools.aitod.build import build_aitod

__all__ = ["build_aitod"]

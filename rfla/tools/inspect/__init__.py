"""`rfla inspect`: whether a data set is fit to train on, and a repaired copy of it."""

from rfla.tools.inspect.inspection import inspect, inspect_data

__all__ = ["inspect", "inspect_data"]

"""`rfla convert`: a data set of any known format into one that `rfla train data=...` takes."""

from rfla.tools.convert.conversion import convert

__all__ = ["convert"]

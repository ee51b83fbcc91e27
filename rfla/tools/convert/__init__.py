"""`rfla convert`: a data set of any known format -> one that `rfla train data=...` takes at once."""

from rfla.tools.convert.chain import convert

__all__ = ["convert"]

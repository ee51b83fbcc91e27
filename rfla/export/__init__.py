"""Networks for other programs: a graph of the whole way from pixels to boxes, and running it."""

"""Changes -> compressed layer; layer -> directory; layer -> index of paths."""

"""Seam: what of a model is trained, and how that lies on disk. One file a method; see `AdapterMethod`."""

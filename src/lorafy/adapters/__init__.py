"""Seam: what of a model is trained. One file a method (lora, full, none), beside attach, targets and files."""

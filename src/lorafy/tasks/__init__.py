"""Seam: an Example becomes Features, a Batch and a loss. One file a task."""

"""Metrics, and the proof that what is on disk is what was trained."""

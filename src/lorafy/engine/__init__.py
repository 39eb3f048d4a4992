"""The fast path: forward passes of our own over a transformers model's own parameters, without padding.

The model stays untouched and is the reference; training/paths.py holds one against the other before the first step.
"""

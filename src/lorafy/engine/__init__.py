"""The fast path: forward passes of our own over a transformers model's own parameters, without padding.

The model remains the reference: no module, name or value of it is changed, and training/paths.py holds one against the
other before the first step. What does change is the memory of some frozen weights: those that are read side by side
become views of one tensor, so that they are held once (kernels/memory.py).
"""

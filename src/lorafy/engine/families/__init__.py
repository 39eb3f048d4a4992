"""One file for each `model_type` of transformers that the fast path knows.

Each defines `TASK`, which it is for, and `read(model, reader)`, which returns the network.
"""

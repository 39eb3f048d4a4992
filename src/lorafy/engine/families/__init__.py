"""One file for each `model_type` of transformers that the fast path knows.

Each defines `READS`, which of an objective's outputs it gives, and `read(model, reader)`, which returns the network.
"""

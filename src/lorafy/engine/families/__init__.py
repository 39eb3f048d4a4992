"""One file for each `model_type` of transformers that the fast path knows. Each defines `read(model, reader)`."""

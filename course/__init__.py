"""LoRA from scratch: the course. README.md says how to open it."""

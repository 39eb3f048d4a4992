"""Base models and tokenizers, devices and precision."""

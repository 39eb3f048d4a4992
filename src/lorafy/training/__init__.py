"""Training: step.py is the mathematics, loop.py the run."""

"""Reading, splitting and batching data."""

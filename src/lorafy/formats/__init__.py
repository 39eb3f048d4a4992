"""Seam: a raw record becomes an Example. One file a format."""

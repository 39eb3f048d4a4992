"""Pictures: what a row names (references.py), where they stand in it (placing.py), how they are read (opening.py)
and made small (thumbnail.py)."""

"""How examples become token ids and batches: texts for a head, conversations through the one prompt renderer."""

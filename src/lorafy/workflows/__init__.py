"""What the verbs do, from a recipe to files: one file a workflow. api.py and cli/ call them."""

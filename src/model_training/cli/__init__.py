"""The command ``model-training``."""

"""Container images in a registry: their names, whether they are there, their labels."""

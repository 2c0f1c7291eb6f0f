"""The Python client: one core without I/O, two shells."""

"""What the test cluster raises."""


class ClusterError(Exception):
    """The test cluster cannot be had; the message says why and what would help."""

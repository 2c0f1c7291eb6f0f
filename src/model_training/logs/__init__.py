"""What jobs printed: files of raw bytes with an index of times beside them."""

"""Room `image`."""

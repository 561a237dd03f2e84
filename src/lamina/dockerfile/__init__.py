"""Room `dockerfile`."""

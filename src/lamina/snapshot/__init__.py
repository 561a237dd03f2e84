"""Room `snapshot`."""

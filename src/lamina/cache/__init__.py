"""Room `cache`."""

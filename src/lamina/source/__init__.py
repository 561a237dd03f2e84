"""Room `source`."""

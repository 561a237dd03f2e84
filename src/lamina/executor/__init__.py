"""Room `executor`."""

"""Room `state`."""

"""Room `llb`."""

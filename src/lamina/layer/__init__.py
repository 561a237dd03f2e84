"""Room `layer`."""

"""Room `solver`."""

"""Upkeep: what is on disk and why, what may go and in which order, and the ceiling that a build keeps to."""

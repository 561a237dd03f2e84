"""Helpers that several suites share: base images, registries, the command itself."""

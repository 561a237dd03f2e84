"""Room `exporter`."""

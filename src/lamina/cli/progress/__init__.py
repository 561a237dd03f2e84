"""Displays of a build's events: plain, tty, rawjson, quiet. Each is a sink that many threads may call."""

"""Traces of builds, as OpenTelemetry has them: spans made of progress events, and their way to a collector.

Import the modules, not the room.
"""

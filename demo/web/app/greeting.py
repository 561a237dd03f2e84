"""The line that the demo edits."""

GREETING = "Hello from a container that lamina built"

"""The composition root: chooses drivers, wires the rooms, and runs one build.

The only room that names concrete classes of the rooms below. Rank 6: `cli/` (and a daemon) call it, the
environment and the terminal stay with them.
"""

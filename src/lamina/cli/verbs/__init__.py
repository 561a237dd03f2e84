"""One module per verb of the command line, each with `add_arguments(parser)` and `run(args) -> int`.

A module is imported only when its verb was chosen, and imports at its top only what costs next to nothing.
"""

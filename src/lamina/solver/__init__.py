"""The solver: a graph of vertices, their cache keys, and the order in which they run.

Knows no containers. `protocol` holds what the solver asks of ops and of a cache, `keys` how keys are made,
`scheduler` the pure state machine (events in, instructions out), `runner` the threads around it.
"""

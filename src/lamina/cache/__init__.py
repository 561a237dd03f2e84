"""Cache records: which key leads to which result. Rank 4; implements what the solver asks of a cache."""

"""What each kind of vertex does: one module per LLB op, each implementing `lamina.solver.protocol.Op`.

`load` turns an LLB graph into solver vertices; `worker` holds what ops use of the rooms below.
"""

"""A gRPC server on byte streams: connections, calls, and the threads that carry them out.

Why not grpcio: the context of a build arrives in messages of a call (`Control.Session`), and grpcio hands each of them
from its own thread to ours one by one; and it serves neither inherited sockets nor hijacked connections.
"""

"""gRPC calls to a client, through a stream of bytes that the client opened: BuildKit's session.

The HTTP/2 server is at the far end, so the daemon is the client of a connection that it did not make.
"""

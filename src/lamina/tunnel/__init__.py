"""gRPC calls to a client through a byte stream that the client opened: BuildKit's session, seen from the builder."""

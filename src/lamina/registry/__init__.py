"""Room `registry`: the distribution client (rank 2). `client.Registry` is its door; see `options` for its shape."""

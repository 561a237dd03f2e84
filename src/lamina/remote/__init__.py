"""The user's side of a build when it is a client far away: BuildKit's session services, called through a tunnel."""

"""Source policies: which sources a build may use, and what they are replaced by. Pure."""

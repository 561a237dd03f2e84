"""The daemon: BuildKit's Control API and docker's endpoints over the engine, for many clients at once."""

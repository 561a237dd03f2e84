"""The command line: the only room that reads the environment, owns the terminal and decides exit codes."""

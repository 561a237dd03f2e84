"""Configuration files: text in, values out. Pure; who reads files and where they lie is rank 6's and 7's affair."""

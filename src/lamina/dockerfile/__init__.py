"""The Dockerfile language: text to typed instructions (`parser`, `words`, `mounts`), and those to LLB (`convert`).

`scanner` joins lines, `statements` takes one apart, `builders` makes one `instructions` value of it. Pure: no files,
no network, no environment.
"""

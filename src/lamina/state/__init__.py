"""The SQLite file beside the store: what is derived or transient, and the locks around it.

Cache records, layer rows, memos of whole builds, stat caches, leases. Losing this file loses speed, never an
image. Knows no containers; the meaning of rows belongs to the rooms that write them.
"""

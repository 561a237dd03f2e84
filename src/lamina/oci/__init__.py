"""Values of the OCI image and distribution specifications: digests, descriptors, platforms, references.

Pure: parse and dump, nothing else. What came from outside keeps its raw bytes; a digest is always over the
bytes that arrived.
"""

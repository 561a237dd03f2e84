"""Layers as chains: which forms of each are at hand, and how one form is made from another.

Rank 3. Joins store (blobs), layer (codec, trees, recipes) and state (rows). Mounts nothing: it says which
directories an overlay is made of.
"""

"""Images as values: layers and a config become a manifest, manifests become an index, and the way back.

Works on blobs that lie in a store; never reads a layer.
"""

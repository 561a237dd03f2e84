"""Statements about a build: provenance and SBOMs, as in-toto statements and the manifests that hold them."""

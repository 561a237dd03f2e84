"""Generated from `api/proto`; do not edit."""

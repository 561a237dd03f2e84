"""Generated from `llb/proto`; do not edit."""

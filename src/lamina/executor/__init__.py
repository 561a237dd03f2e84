"""Room `executor`: runs one process in a root file system made of layer trees, under an OCI runtime.

`step` and `spec` are pure; `executor` is the caller's side; `helper`, `assemble`, `stubs`, `overlay`, `kernel` and
`cgroups` run in the helper process; `userns` and `probe` serve the command line. Import the modules, not the room.
"""

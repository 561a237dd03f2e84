"""Where results go: image store, registry, archives that other tools load, plain file trees.

`outputs.py` reads `--output`, `protocol.py` says what an exporter is given, `export.py` chooses one. `archive_in.py`
and `layout_in.py` are the way back: archives and layouts of other tools into the store.
"""

"""The schema of the state file, and how an older one becomes the current one.

Invariants:
* a row is written after what it points to, so any prefix of a build's writes is a valid state;
* ids are never reused (AUTOINCREMENT): directories and index files are named by them;
* times are seconds since the epoch (REAL); `used` is the last time a build relied on the row.
"""

from __future__ import annotations

VERSION = 3

_HTTP = """
-- Versions of files that came by http: `origin` is a hash of what was asked for (no credentials), `etag` and `modified`
-- name the version to the server, `layer` holds the file alone. A row goes with its layer.
CREATE TABLE http(
    origin TEXT NOT NULL,
    digest TEXT NOT NULL,
    etag TEXT NOT NULL,
    modified TEXT NOT NULL,
    disposition TEXT NOT NULL,
    layer INTEGER NOT NULL REFERENCES layer(id) ON DELETE CASCADE,
    used REAL NOT NULL,
    PRIMARY KEY(origin, digest, layer)
) WITHOUT ROWID;
CREATE INDEX http_layer ON http(layer);
CREATE INDEX http_digest ON http(digest);
"""

_HISTORY = """
-- Every build leaves a row, also one that failed, was cancelled or killed. `project` is a hash of what the user builds
-- (context, Dockerfile, target, platforms), so that builds of one thing are compared. `lease` names the work directory:
-- a row that still says running without a live lease is of a build that died. `same_as` names the build whose steps
-- this one found again without looking at them. `record` is JSON (see lamina.history.records).
CREATE TABLE build(
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    project TEXT NOT NULL,
    name TEXT NOT NULL,
    lease TEXT NOT NULL DEFAULT '',
    started REAL NOT NULL,
    completed REAL,
    status TEXT NOT NULL,
    error TEXT NOT NULL DEFAULT '',
    steps INTEGER NOT NULL DEFAULT 0,
    cached INTEGER NOT NULL DEFAULT 0,
    same_as TEXT NOT NULL DEFAULT '',
    log_bytes INTEGER NOT NULL DEFAULT 0,
    record TEXT NOT NULL DEFAULT '{}'
);
CREATE INDEX build_project ON build(project, seq);
CREATE INDEX build_name ON build(name, seq);
CREATE INDEX build_repeated ON build(seq) WHERE same_as <> '';
-- One vertex of one build. `origin` says where a cached result came from, '' is this store. `reason` (JSON) says why
-- the vertex ran.
CREATE TABLE step(
    build INTEGER NOT NULL REFERENCES build(seq) ON DELETE CASCADE,
    number INTEGER NOT NULL,
    vertex TEXT NOT NULL,
    name TEXT NOT NULL,
    definition TEXT NOT NULL DEFAULT '',
    exact TEXT NOT NULL DEFAULT '',
    canon TEXT NOT NULL DEFAULT '',
    cached INTEGER NOT NULL DEFAULT 0,
    origin TEXT NOT NULL DEFAULT '',
    started REAL,
    completed REAL,
    error TEXT NOT NULL DEFAULT '',
    reason TEXT NOT NULL DEFAULT '',
    PRIMARY KEY(build, number)
) WITHOUT ROWID;
-- What a content digest in a key was made of: a compressed list of paths. Written when a step missed the cache.
CREATE TABLE listing(digest TEXT PRIMARY KEY, size INTEGER NOT NULL, used REAL NOT NULL, data BLOB NOT NULL);
-- Nodes that were dropped, by which rule and when: so that a miss can say so, and what the key had been made of.
CREATE TABLE pruned(
    canon TEXT PRIMARY KEY,
    description TEXT NOT NULL,
    parts TEXT NOT NULL,
    rule TEXT NOT NULL,
    at REAL NOT NULL
) WITHOUT ROWID;
CREATE INDEX node_description ON node(description);
"""

_UPKEEP = """
-- Space: what a layer's tree and index take on the disk, how often results and cache mounts were used, and what cache
-- mounts take (`measured` is when that was looked at; older than `used` means: not since the last use).
ALTER TABLE layer ADD COLUMN tree_bytes INTEGER NOT NULL DEFAULT 0;
ALTER TABLE layer ADD COLUMN index_bytes INTEGER NOT NULL DEFAULT 0;
ALTER TABLE node ADD COLUMN uses INTEGER NOT NULL DEFAULT 1;
ALTER TABLE cachemount ADD COLUMN bytes INTEGER NOT NULL DEFAULT 0;
ALTER TABLE cachemount ADD COLUMN uses INTEGER NOT NULL DEFAULT 1;
ALTER TABLE cachemount ADD COLUMN measured REAL NOT NULL DEFAULT 0;
UPDATE layer SET tree_bytes = size WHERE tree = 1;
-- Running sums of what has no rows of its own: `blobs`, `git`. `measured` is when they were last counted file by file.
CREATE TABLE usage(kind TEXT PRIMARY KEY, bytes INTEGER NOT NULL, measured REAL NOT NULL) WITHOUT ROWID;
"""

TABLES = (
    """
CREATE TABLE meta(name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;

-- One layer of one chain. `parent` is the layer below, NULL at the bottom. A row without tree and without blob is
-- remote: `origin` (JSON) says where its blob comes from.
CREATE TABLE layer(
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    parent INTEGER REFERENCES layer(id),
    chain_id TEXT,
    diff_id TEXT,
    blob TEXT,
    blob_size INTEGER NOT NULL DEFAULT 0,
    media_type TEXT NOT NULL DEFAULT '',
    origin TEXT NOT NULL DEFAULT '',
    tree INTEGER NOT NULL DEFAULT 0,
    indexed INTEGER NOT NULL DEFAULT 0,
    size INTEGER NOT NULL DEFAULT 0,
    description TEXT NOT NULL DEFAULT '',
    created REAL NOT NULL,
    used REAL NOT NULL
);
CREATE INDEX layer_chain ON layer(chain_id);
CREATE INDEX layer_parent ON layer(parent);
CREATE INDEX layer_blob ON layer(blob);
CREATE INDEX layer_diff ON layer(diff_id);

-- One piece of work that was done: `canon` is the key its dependents build on, `parts` (JSON) what keys were made of.
CREATE TABLE node(
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    canon TEXT NOT NULL,
    description TEXT NOT NULL DEFAULT '',
    parts TEXT NOT NULL DEFAULT '{}',
    seconds REAL NOT NULL DEFAULT 0,
    created REAL NOT NULL,
    used REAL NOT NULL
);
-- Keys are aliases of nodes. Pruning a node's results keeps its keys.
CREATE TABLE key(key TEXT PRIMARY KEY, node INTEGER NOT NULL REFERENCES node(id) ON DELETE CASCADE) WITHOUT ROWID;
CREATE INDEX key_node ON key(node);
-- `layer` NULL is the empty root file system.
CREATE TABLE result(
    node INTEGER NOT NULL REFERENCES node(id) ON DELETE CASCADE,
    output INTEGER NOT NULL,
    layer INTEGER REFERENCES layer(id),
    PRIMARY KEY(node, output)
) WITHOUT ROWID;
CREATE INDEX result_layer ON result(layer);

-- What a whole build came to, by what it observed (see engine/fast.py).
CREATE TABLE memo(key TEXT PRIMARY KEY, value TEXT NOT NULL, used REAL NOT NULL) WITHOUT ROWID;
-- Digests of live files by their stat data, one blob for each context directory.
CREATE TABLE statcache(root TEXT PRIMARY KEY, data BLOB NOT NULL, used REAL NOT NULL) WITHOUT ROWID;
-- Sizes and uses of cache mounts; `id` is the directory's name.
CREATE TABLE cachemount(
    id TEXT PRIMARY KEY, name TEXT NOT NULL, created REAL NOT NULL, used REAL NOT NULL
) WITHOUT ROWID;
"""
    + _HTTP
    + _HISTORY
    + _UPKEEP
)

MIGRATIONS: dict[int, str] = {1: _HTTP, 2: _HISTORY + _UPKEEP}
"""Statements that lead from the version of the key to the next one."""

"""Capabilities of LLB that are carried out, by BuildKit's names."""

LLB_CAPS = frozenset(
    {
        *("source.git.mtime", "source.git.fetchbycommit", "source.image.checksum", "source.local.differ"),
        *(
            "file.rm.nofollowsymlink",
            "passthroughop",
            "source.buildop.llbfilename",
            "source.image.layerlimit",
            "source.imageblob",
        ),
        *("source.image", "source.image.resolvemode", "source.local", "source.local.includepatterns"),
        *("source.local.unique", "source.local.sessionid"),
        *("source.local.followpaths", "source.local.excludepatterns", "source.local.sharedkeyhint", "source.git"),
        *("source.git.keepgitdir", "source.git.fullurl", "source.git.httpauth", "source.git.knownsshhosts"),
        *("source.git.mountsshsock", "source.git.subdir", "source.git.checksum", "source.git.skipsubmodules"),
        *("source.http", "source.http.auth", "source.http.checksum", "source.http.perm", "soruce.http.uidgid"),
        *("source.http.header", "source.ocilayout", "exec.meta.base", "exec.meta.network", "exec.meta.proxyenv"),
        *("exec.meta.security", "exec.meta.setsdefaultpath", "exec.meta.ulimit", "exec.meta.cdi"),
        *(
            "exec.meta.linux.resources",
            "exec.meta.cgroup.parent",
            "exec.meta.removemountstubs.recursive",
            "exec.mount.bind",
        ),
        *("exec.mount.bind.readwrite-nooutput", "exec.mount.cache", "exec.mount.cache.sharing"),
        *("exec.mount.selector", "exec.mount.tmpfs", "exec.mount.tmpfs.size", "exec.mount.secret", "exec.mount.ssh"),
        *("exec.mount.cache.content", "exec.cgroup", "exec.secretenv", "exec.validexitcode", "file.base"),
        *(
            "file.rm.wildcard",
            "file.copy.includeexcludepatterns",
            "file.copy.requiredpaths",
            "file.copy.alwaysreplaceexistingdestpaths",
        ),
        *("file.copy.modestring", "file.symlink.create", "constraints", "platform", "meta.ignorecache"),
        *("meta.description", "meta.exportcache", "mergeop", "diffop", "exporter.multiple", "exporter.session"),
        *("source.policy", "source.policy.session"),
        *(
            "exporter.image.annotations",
            "exporter.image.attestations",
            "exporter.sourcedateepoch",
            "cache.gha",
            "cache.s3",
            "cache.azblob",
        ),
    }
)

"""Signed indexes: what experts there are, in which versions, as static files that any web server or folder can hold.

    metadata/N.root.json, N.targets.json, N.bin-X.json, N.snapshot.json, timestamp.json     The Update Framework's roles
    targets/<sha256>.<name>.json                                                            one document per expert
    packages/<name>-<base>.v<version>.expert                                                the archives

Documents are TUF targets in hashed bins, so that a client reads the few that it needs; a document names archives, each
with its size and sha256. The root keys sign root and the delegation to the bins and are kept offline; the index key
signs bins, snapshot and timestamp with every change. An index says which archives are current. Whether an archive may
be installed is still decided by the signature inside it.
"""

"""What outlives a build, in a directory that builds share: `--cache-dir`.

Images, compressed layers, indexes of layers and unpacked layers, each an entry of `builder.store.entries`.
"""

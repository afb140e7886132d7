#!/bin/sh
# An archive on standard input: plain, gzip, bzip2, xz or zstd. With kubectl run or docker run, pass --interactive.
tar -cz . | limpet --context=tar://- --destination="$IMAGE"

#!/bin/sh
# An archive on a web server, with its checksum; the login comes from a netrc file.
NETRC=/secrets/netrc limpet --context="https://files.example.com/app.tar.zst#sha256=$SHA256" --destination="$IMAGE"

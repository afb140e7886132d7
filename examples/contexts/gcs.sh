#!/bin/sh
# One generation of an archive in Google Cloud Storage.
limpet --context="gs://builds/app.tar.gz#$GENERATION" --destination="$IMAGE"

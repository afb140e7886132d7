#!/bin/sh
# One version of an archive in S3; the credential is that of the pod, or AWS_ACCESS_KEY_ID with its secret.
limpet --context="s3://builds/app.tar.gz?versionId=$VERSION" --destination="$IMAGE"

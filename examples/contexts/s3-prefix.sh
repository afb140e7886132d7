#!/bin/sh
# A tree of objects in another S3 store, such as MinIO.
S3_ENDPOINT=https://minio.example.com S3_FORCE_PATH_STYLE=true limpet --context=s3://builds/app/ --destination="$IMAGE"

#!/bin/sh
# An artifact or image of a registry, by digest.
limpet --context="oci://registry.example.com/team/app-source@$DIGEST" --destination="$IMAGE"

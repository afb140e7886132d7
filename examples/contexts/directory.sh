#!/bin/sh
# A directory of this pod, for example the workspace that a clone step filled.
limpet --context=dir:///workspace/source --context-sub-path=services/api --destination="$IMAGE"

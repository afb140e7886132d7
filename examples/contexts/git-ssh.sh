#!/bin/sh
# A repository by ssh; key and known_hosts are the files of a Secret.
GIT_SSH_DIR=/secrets/ssh limpet --context="git@git.example.com:team/app.git#v1.2.0" --destination="$IMAGE"

#!/bin/sh
# A branch of a private repository and a directory in it; GIT_TOKEN is in the environment.
limpet --context="https://git.example.com/team/app.git#main:services/api" --destination="$IMAGE"

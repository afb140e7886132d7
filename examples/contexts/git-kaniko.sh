#!/bin/sh
# The address as kaniko writes it; --git says how to clone.
limpet --context="git://git.example.com/team/app.git#refs/heads/main" --git=depth=1 --destination="$IMAGE"

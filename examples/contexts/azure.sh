#!/bin/sh
# A blob in Azure; the address has a SAS, so it is in the environment, where no list of processes shows it.
LIMPET_CONTEXT="https://builds.blob.core.windows.net/contexts/app.tar.gz?$SAS" limpet --destination="$IMAGE"

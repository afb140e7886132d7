"""`python -m builder` is `limpet`."""

import sys

from builder.cli.main import main

sys.exit(main())

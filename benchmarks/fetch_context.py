"""Fetch one context: what benchmarks/contexts.py measures, a program that does this and nothing else.

python benchmarks/fetch_context.py LOCATION DIRECTORY
"""

import os
import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).parent.parent)

from context_sources import FetchSettings, fetch  # noqa: E402

fetch(sys.argv[1], Path(sys.argv[2]), FetchSettings(environment=os.environ, allow_http=True))

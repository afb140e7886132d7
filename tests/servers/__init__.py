"""Real servers for tests, each a context manager that starts it on a free port of 127.0.0.1 and stops it."""

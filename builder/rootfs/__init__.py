"""Paths that cannot escape, users and groups, what changed since."""

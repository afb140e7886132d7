"""Dockerfiles: text -> stages of typed instructions. Pure: nothing here reads a file or looks at an environment."""

from builder.dockerfile.stages import parse, parse_instruction

__all__ = ["parse", "parse_instruction"]

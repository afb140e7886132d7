"""Limpet: builds container images from Dockerfiles inside an ordinary pod."""

__version__ = "0.1.0"

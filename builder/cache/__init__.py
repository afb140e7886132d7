"""Keys and stores of finished layers."""

from builder.cache.blob import CacheDamaged
from builder.cache.entry import Entry, LayerCache
from builder.cache.key import CacheKey

__all__ = ["CacheDamaged", "CacheKey", "Entry", "LayerCache"]

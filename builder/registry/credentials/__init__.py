"""Which credential goes to which repository."""

from builder.registry.credentials.chain import Credentials
from builder.registry.credentials.credential import HELPERS, Credential, Lookup
from builder.registry.credentials.docker_config import login

__all__ = ["HELPERS", "Credential", "Credentials", "Lookup", "login"]

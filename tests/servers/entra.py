"""A stand-in for Microsoft Entra ID's token service, to be put behind `clouds.every_https_host` or TLS of one's own.

It gives tokens that Azurite takes with --oauth basic: it looks at issuer, audience and times, not at the signature.
"""

from __future__ import annotations

import time
import uuid
from dataclasses import dataclass, field
from typing import Any

import jwt

TENANT, CLIENT = "72f988bf-86f1-41af-91ab-2d7cd011db47", "5a3f0f5e-0000-4000-8000-0123456789ab"


@dataclass
class Entra:
    """One tenant with one application, which proves itself by `assertion` (a service account's token) or `secret`.

    `granted` are the tokens that were given, `asked` the forms of all requests for one.
    """

    assertion: str = ""
    secret: str = ""
    granted: list[str] = field(default_factory=list)
    asked: list[dict[str, str]] = field(default_factory=list)

    def answer(self, host: str, path: str, form: dict[str, str]) -> tuple[int, dict[str, Any]]:
        """What `clouds` wants of a server."""
        base = f"https://{host}/{TENANT}"
        if path == "/metadata/identity/oauth2/token":  # the metadata service of a machine, on which all are trusted
            self.granted.append(storage_token())
            expiry = {"expires_in": "3599", "expires_on": str(int(time.time()) + 3599)}
            resource = {"resource": "https://storage.azure.com", "token_type": "Bearer"}
            return 200, {"access_token": self.granted[-1], **expiry, **resource}
        if path.endswith("/.well-known/openid-configuration"):
            return 200, {
                "issuer": f"{base}/v2.0",
                "authorization_endpoint": f"{base}/oauth2/v2.0/authorize",
                "token_endpoint": f"{base}/oauth2/v2.0/token",
            }
        if path.endswith("/discovery/instance"):
            return 200, {"tenant_discovery_endpoint": f"{base}/v2.0/.well-known/openid-configuration", "metadata": []}
        if path != f"/{TENANT}/oauth2/v2.0/token":
            return 404, {"error": "not_found"}
        self.asked.append(form)
        proof = form.get("client_assertion", ""), form.get("client_secret", "")
        if form.get("client_id") != CLIENT or proof not in ((self.assertion, ""), ("", self.secret)) or not any(proof):
            return 401, {
                "error": "invalid_client",
                "error_description": "AADSTS700213: No matching federated identity record found for the assertion.",
                "error_codes": [700213],
            }
        self.granted.append(storage_token())
        return 200, {"token_type": "Bearer", "expires_in": 3599, "access_token": self.granted[-1]}


def storage_token() -> str:
    """For Azure Storage, valid for an hour."""
    now = int(time.time())
    claims = {
        "aud": "https://storage.azure.com",
        "iss": f"https://sts.windows.net/{TENANT}/",
        "iat": now - 5,
        "nbf": now - 5,
        "exp": now + 3600,
        "oid": CLIENT,
        "jti": uuid.uuid4().hex,
    }
    return jwt.encode(claims, "a key that nobody checks, 32 bytes", "HS256")

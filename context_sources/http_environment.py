"""What the given environment says of HTTP: which certificates to trust and which proxy to use."""

from __future__ import annotations

import ipaddress
import os
import ssl
from collections.abc import Mapping
from urllib.parse import urlsplit

import certifi

from builder.errors import UsageError

UNTRUSTED = "name a bundle with the server's CA by SSL_CERT_FILE, or its directory by SSL_CERT_DIR"
BUNDLE_NAMES = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")


def ca_bundle(environment: Mapping[str, str]) -> str:
    """The file of certificates that the environment states, or ""."""
    for name in BUNDLE_NAMES:
        if value := environment.get(name, ""):
            if not os.path.isfile(value):
                raise UsageError(f"{name}={value}: no such file", "mount the bundle of CA certificates there")
            return value
    return ""


def trust(environment: Mapping[str, str]) -> ssl.SSLContext:
    """Whom to trust: what the environment states, else the system's certificates and those shipped with requests.

    SSL_CERT_DIR is a list of directories whose files are all read, whatever they are called.
    """
    bundle = ca_bundle(environment)
    directories = [path for path in environment.get("SSL_CERT_DIR", "").split(":") if path]
    if not bundle and not directories:
        context = ssl.create_default_context()
        context.load_verify_locations(certifi.where())
        return context
    context = ssl.create_default_context(cafile=bundle or certifi.where())
    for directory in directories:
        for name in sorted(os.listdir(directory)) if os.path.isdir(directory) else ():
            path = os.path.join(directory, name)
            try:
                if os.path.isfile(path):
                    context.load_verify_locations(path)
            except ssl.SSLError:
                continue  # such directories also hold keys, revocation lists and notes
    return context


def proxies_for(url: str, environment: Mapping[str, str]) -> dict[str, str]:
    """The proxy for `url`, in the form of requests: {scheme: proxy}, empty for none.

    Reads http_proxy (only in small letters, since CGI sets the other), https_proxy, all_proxy and no_proxy.
    """
    parts = urlsplit(url)
    host, port = parts.hostname or "", parts.port
    names = [f"{parts.scheme}_proxy"] if parts.scheme == "http" else [f"{parts.scheme}_proxy", "HTTPS_PROXY"]
    proxy = next((environment[name] for name in (*names, "all_proxy", "ALL_PROXY") if environment.get(name)), "")
    exceptions = environment.get("no_proxy") or environment.get("NO_PROXY", "")
    if not proxy or any(is_exception(host, port, rule.strip()) for rule in exceptions.split(",")):
        return {}
    return {parts.scheme: proxy if "://" in proxy else f"http://{proxy}"}


def is_exception(host: str, port: int | None, rule: str) -> bool:
    """Whether one item of no_proxy covers `host`: *, a name[:PORT] and all below it, an address, a network."""
    if not rule:
        return False
    if rule == "*":
        return True
    try:
        return ipaddress.ip_address(host) in ipaddress.ip_network(rule, strict=False)
    except ValueError:
        pass
    name, _, wanted_port = rule.partition(":")
    if wanted_port and wanted_port != str(port):
        return False
    name = name.removeprefix("*").lstrip(".").lower()
    return host.lower() == name or host.lower().endswith("." + name)

"""Where an Ollama server is, as people write it."""

from __future__ import annotations

import ipaddress

from doc_classify.errors import ConfigurationError

_PORT = "11434"
_PORTS = {"http": "80", "https": "443"}
"""What Ollama itself takes OLLAMA_HOST to mean where it has a scheme and no port."""


def server_url(host: str) -> str:
    """The URL of an Ollama server, from any form that ``OLLAMA_HOST`` takes.

    ``127.0.0.1``, ``HOST:PORT``, ``:11434``, ``[::1]:11434``, ``https://USER:PASSWORD@HOST/PATH``
    ... As with Ollama, the port is 11434, or 80 and 443 where http:// and https:// are written
    out. The address that means "all of this machine" to a server means this machine to us. Source:
    https://github.com/ollama/ollama/blob/main/envconfig/config.go

    Raises:
        ConfigurationError: it is none of them. The message holds no part of a password.
    """
    text = host.strip().strip("\"'").strip()
    scheme, given, rest = text.partition("://")
    if not given:
        scheme, rest, port = "http", text, _PORT
    else:
        scheme = scheme.lower()
        port = _PORTS.get(scheme, _PORT)
    if scheme not in _PORTS:
        raise ConfigurationError("the address of Ollama must begin with http:// or https://")
    authority, slash, path = rest.partition("/")
    user, at, place = authority.rpartition("@")
    name, written = _host_and_port(place)
    if written and not (written.isascii() and written.isdigit() and 0 < int(written) < 65536):
        raise ConfigurationError(
            "the address of Ollama must be like 127.0.0.1:11434 or http://HOST:PORT; in a "
            "password, / is written %2F"
        )
    return f"{scheme}://{user}{at}{name}:{written or port}{slash}{path}".rstrip("/")


def _host_and_port(place: str) -> tuple[str, str]:
    """Host, as it stands in a URL, and port, "" where there is none."""
    if place.startswith("["):
        name, _, port = place[1:].partition("]")
        port = port.removeprefix(":")
    elif place.count(":") > 1:
        name, port = place, ""
    else:
        name, _, port = place.partition(":")
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        return name or "127.0.0.1", port
    if address.is_unspecified:
        return ("127.0.0.1" if address.version == 4 else "[::1]"), port
    return (name if address.version == 4 else f"[{name}]"), port

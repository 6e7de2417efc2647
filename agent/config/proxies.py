"""The way out: what ``proxy`` may say, and what the environment says where it says ``"environment"``.

Pure. A proxy's password is part of its URL; it never shows in ``repr``, in a dump or in an error.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Mapping

ENVIRONMENT = "environment"
_FORM = 'a proxy is written "http://proxy:3128" or "http://user:password@proxy:3128"'


class ProxyUrl(str):
    """The URL of a proxy; shows itself without user and password."""

    __slots__ = ()

    @property
    def shown(self) -> str:
        """The URL as it may be shown."""
        scheme, separator, rest = self.partition("://")
        return f"{scheme}{separator}{rest.rpartition('@')[2]}"

    def __repr__(self) -> str:
        return repr(self.shown)


def parse_proxy(text: str) -> ProxyUrl:
    """Return ``"environment"``, or the URL of a proxy with its port.

    Raises:
        ValueError: says how a proxy is written, and never what was written.
    """
    if text == ENVIRONMENT:
        return ProxyUrl(text)
    scheme, separator, rest = text.partition("://")
    if not separator:
        raise ValueError(f'{_FORM}; "environment" takes it from HTTPS_PROXY')
    if scheme.lower() != "http":
        raise ValueError(f"the connection to a proxy is plain http (what goes through it is https); {_FORM}")
    userinfo, at, address = rest.rstrip("/").rpartition("@")
    if not re.fullmatch(r"[\x21-\x7e]*", userinfo) or re.search(r"[/?#@]", userinfo):
        raise ValueError("percent-encode special characters in user and password (`@` is %40, `/` is %2F, `#` is %23)")
    return ProxyUrl(f"http://{userinfo}{at}{_address(address)}")


def _address(text: str) -> str:
    """Return HOST:PORT if it is one.

    Raises:
        ValueError: it is not.
    """
    try:
        parts = urlsplit(f"//{text}")
        port, host = parts.port, parts.hostname
    except ValueError:
        port = host = None
    if not port or not host or parts.netloc != text or not re.fullmatch(r"[A-Za-z0-9._-]+|[0-9A-Fa-f:.]+", host):
        raise ValueError(f"the host or its port is missing or wrong; {_FORM}")
    return text


def from_environment(url: str, environ: Mapping[str, str]) -> ProxyUrl | None:
    """Return the proxy that the environment names for a URL, None for a direct connection.

    As curl and most tools read it: https_proxy, then HTTPS_PROXY, unless no_proxy or NO_PROXY excepts the host.

    Raises:
        ValueError: the environment names something that is not a proxy; the text names the variable.
    """
    name = next((name for name in ("https_proxy", "HTTPS_PROXY") if environ.get(name, "").strip()), None)
    exceptions = environ.get("no_proxy") or environ.get("NO_PROXY") or ""
    if name is None or _is_excepted(url, exceptions):
        return None
    text = environ[name].strip()
    try:
        return parse_proxy(_with_port(text if "://" in text else f"http://{text}"))
    except ValueError as error:
        raise ValueError(f"${name} cannot be used: {error}") from None


def _with_port(url: str) -> str:
    """Add http's own port where none is named: common in the environment, a mistake in a configuration."""
    bare = url.rstrip("/")
    return f"{bare}:80" if re.fullmatch(r"[^:]+://(?:.*@)?(?:[^@:\[\]]+|\[[^\]]*\])", bare) else bare


def _is_excepted(url: str, exceptions: str) -> bool:
    """Tell whether no_proxy names the host, a domain it is in, or everything."""
    parts = urlsplit(url)
    host, port = (parts.hostname or "").lower(), parts.port or 443
    for entry in re.split(r"[,\s]+", exceptions.lower()):
        name, _, wanted = entry.partition(":") if entry.count(":") == 1 else (entry, "", "")
        name = name.removeprefix("*").strip(".[]")
        if entry == "*" or (name and (host == name or host.endswith(f".{name}")) and wanted in ("", str(port))):
            return True
    return False

"""How identity providers are named in a configuration: tenants, authorities, issuers, applications, scopes.

Pure. Functions that begin with ``check`` or ``parse`` raise ``ValueError`` with what would be right; ``..._hint``
functions return the corrected text, which holds nothing secret.
"""

from __future__ import annotations

import re
from enum import StrEnum
from urllib.parse import SplitResult, urlsplit

_GUID = re.compile(r"[0-9A-Fa-f]{8}-(?:[0-9A-Fa-f]{4}-){3}[0-9A-Fa-f]{12}")
_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_DOMAIN = re.compile(rf"{_LABEL}(?:\.{_LABEL})+")
_SEGMENT = re.compile(r"[A-Za-z0-9._~-]+")
_SCOPE = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]+")
"""A scope-token of RFC 6749 3.3."""
_SHARED_TENANTS = ("common", "organizations", "consumers")
_CIAM = ".ciamlogin.com"
_DEFAULT = "/.default"
_DISCOVERY = "/.well-known/openid-configuration"
_WRONG_TENANT = "a tenant is a GUID or a verified domain such as contoso.onmicrosoft.com"
_AUTHORITY_FORM = 'an authority is written "https://login.microsoftonline.com/TENANT"'


class Cloud(StrEnum):
    """Microsoft's clouds, by the names of the configuration."""

    PUBLIC = "public"
    USGOV = "usgov"
    CHINA = "china"

    @property
    def host(self) -> str:
        """The sign-in host of the cloud (learn.microsoft.com: "National clouds")."""
        return _CLOUD_HOSTS[self]


_CLOUD_HOSTS = {
    Cloud.PUBLIC: "login.microsoftonline.com",
    Cloud.USGOV: "login.microsoftonline.us",
    Cloud.CHINA: "login.partner.microsoftonline.cn",
}
_GRAPHS: dict[str, str] = {
    Cloud.PUBLIC: "https://graph.microsoft.com",
    Cloud.USGOV: "https://graph.microsoft.us",
    Cloud.CHINA: "https://microsoftgraph.chinacloudapi.cn",
}


def is_guid(text: str) -> bool:
    """Tell whether a text is a GUID as the portal shows them."""
    return _GUID.fullmatch(text) is not None


def check_tenant(text: str) -> str:
    """Refuse what is not one tenant.

    Raises:
        ValueError: a shared endpoint (AADSTS9001023), or no tenant at all.
    """
    if text.lower() in _SHARED_TENANTS:
        raise ValueError(
            f"`{text.lower()}` is for people who sign in; an application names its tenant: "
            "a GUID or a verified domain such as contoso.onmicrosoft.com"
        )
    if not is_guid(text) and not (_DOMAIN.fullmatch(text) and len(text) <= 253):  # noqa: PLR2004 - RFC 1035 2.3.4
        raise ValueError(_WRONG_TENANT)
    return text


def parse_authority(text: str) -> str:
    """Return an authority of Entra's kind as ``https://host/tenant``.

    A slash at the end and ``/v2.0``, as other tools want it, are taken off.

    Raises:
        ValueError: it is no https URL with exactly one tenant.
    """
    parts = _https(text, _AUTHORITY_FORM)
    segments = parts.path.strip("/").split("/")
    if segments[1:] == ["v2.0"]:
        segments.pop()
    if len(segments) != 1 or not _SEGMENT.fullmatch(segments[0]):
        raise ValueError(f"after the host comes the tenant and nothing else: {_AUTHORITY_FORM}")
    if segments[0].lower() in _SHARED_TENANTS:
        check_tenant(segments[0])
    return f"https://{parts.netloc.lower()}/{segments[0]}"


def check_issuer(text: str) -> str:
    """Refuse an issuer that cannot be one; otherwise it stays as it is, for issuers are compared letter by letter.

    Raises:
        ValueError: it is no https URL, or the URL of its discovery document.
    """
    form = 'an issuer is written "https://keycloak.example.com/realms/x"'
    parts = _https(text, form)
    if parts.path.endswith(_DISCOVERY):
        raise ValueError(f"give the issuer itself: the same URL without {_DISCOVERY}")
    return text


def _https(text: str, form: str) -> SplitResult:
    """Return the parts of a plain https URL; nothing in it may be a secret, a query or a blank."""
    if not text.isascii() or not text.isprintable() or " " in text:
        raise ValueError(f"blanks and special characters have no place here; {form}")
    try:
        parts = urlsplit(text)
        usable = parts.hostname is not None and _is_host(parts.hostname) and parts.port != 0
    except ValueError:  # a port that is no number, a bracket too many
        raise ValueError(f"this is not a URL; {form}") from None
    if parts.scheme == "http":
        raise ValueError("an identity provider is only ever asked over https")
    if parts.scheme != "https" or not usable:
        raise ValueError(f"this is not an https URL; {form}")
    if "@" in parts.netloc or parts.query or parts.fragment or text.endswith(("?", "#")):
        raise ValueError(f"neither user, query nor fragment belongs here; {form}")
    return parts


def _is_host(name: str) -> bool:
    return re.fullmatch(r"[A-Za-z0-9._-]+|[0-9A-Fa-f:.]+", name) is not None


def is_client_id(text: str) -> bool:
    """Tell whether a text can be the client id of any provider."""
    return re.fullmatch(r"[\x21-\x7e]{1,255}", text) is not None


def guid_hint(text: str) -> str:
    """Return what to do about a client id that is not a GUID."""
    bare = text.strip("{}() \t")
    if is_guid(bare):
        return f'write "{bare}"'
    return "the Application (client) ID on the overview page of the app registration, not its name"


def check_scope(text: str) -> str:
    """Refuse what is not one scope.

    Raises:
        ValueError: it holds blanks, quotes or backslashes (RFC 6749 3.3).
    """
    if not _SCOPE.fullmatch(text):
        raise ValueError('a scope holds no blanks and no quotes; several are written as a list: ["a", "b"]')
    return text


def is_default_scope(scope: str) -> bool:
    """Tell whether a scope is what Entra's client credentials flow takes: RESOURCE/.default."""
    return scope.endswith(_DEFAULT) and len(scope) > len(_DEFAULT)


def scope_hint(scope: str, cloud: str = "public") -> str:
    """Return the scope that was probably meant, always ending in /.default."""
    scope = scope.rstrip("/")
    if scope.lower().endswith(_DEFAULT):
        resource = scope[: -len(_DEFAULT)]
    elif "://" in scope:
        resource = _resource_of_uri(scope)
    else:
        resource = scope.partition("/")[0] if is_guid(scope.partition("/")[0]) else ""
    return (resource.rstrip("/") or _GRAPHS.get(cloud, _GRAPHS[Cloud.PUBLIC])) + _DEFAULT


def _resource_of_uri(scope: str) -> str:
    """Return the resource of ``scheme://authority[/path]/permission``; without a path it is the resource itself."""
    scheme, _, rest = scope.partition("://")
    return f"{scheme}://{rest.rpartition('/')[0] or rest}"

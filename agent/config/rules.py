"""What has to fit together in a configuration: rules about several keys at once, each with its fix.

Pure. A rule looks at a table as it was written (with [defaults] merged in), so that all problems of a table are
found at once, whatever else is wrong with it; values of the wrong type are none of its business.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from agent import formats
from agent.config import providers, values
from agent.config.complaints import Complaint
from agent.config.fields import is_local
from agent.config.model import Refresh

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from agent.config.model import Profile


CREDENTIALS = ("certificate", "federated", "client_secret_file")
AUTHORITIES = ("tenant", "authority", "oidc_issuer")
_NO_CREDENTIAL = 'such as certificate = "/etc/token-agent/NAME.pem"; token-agent cert new makes one'
_NO_AUTHORITY = 'such as tenant = "contoso.onmicrosoft.com", or its GUID'


def profile_rules(keys: Mapping[str, Any]) -> Iterator[Complaint]:
    """Yield what does not fit together in a profile."""
    yield from _exactly_one(keys, CREDENTIALS, "names no credential", _NO_CREDENTIAL)
    yield from _exactly_one(keys, AUTHORITIES, "names no tenant", _NO_AUTHORITY)
    if "cloud" in keys and ("authority" in keys or "oidc_issuer" in keys):
        other = "authority" if "authority" in keys else "oidc_issuer"
        yield Complaint(("cloud",), f"goes with `tenant`; `{other}` already says which provider", "remove it")
    yield from _oidc_rules(keys) if "oidc_issuer" in keys else _entra_rules(keys)
    yield from _federated(keys.get("federated"))
    yield from _refresh(keys.get("refresh"))
    yield from _on_refresh(keys.get("on_refresh"))


def _exactly_one(keys: Mapping[str, Any], group: tuple[str, ...], none: str, hint: str) -> Iterator[Complaint]:
    given = [key for key in group if key in keys]
    if not given:
        yield Complaint((), none, hint)
    for surplus in given[1:]:
        yield Complaint((surplus,), f"`{given[0]}` is given as well", "keep exactly one of them")


def _oidc_rules(keys: Mapping[str, Any]) -> Iterator[Complaint]:
    client_id = keys.get("client_id")
    if isinstance(client_id, str) and client_id and not providers.is_client_id(client_id):
        yield Complaint(("client_id",), "a client id holds letters, digits and punctuation, no blanks")


def _entra_rules(keys: Mapping[str, Any]) -> Iterator[Complaint]:
    """Yield what Entra would refuse: names instead of ids, delegated scopes, several resources."""
    client_id = keys.get("client_id")
    if isinstance(client_id, str) and client_id and not providers.is_guid(client_id):
        yield Complaint(("client_id",), "a client id of Entra is a GUID", providers.guid_hint(client_id))
    expect = keys.get("expect")
    tenant_id = expect.get("tenant_id") if isinstance(expect, dict) else None
    if isinstance(tenant_id, str) and tenant_id and not providers.is_guid(tenant_id):
        hint = "the Directory (tenant) ID on the overview page of the app registration"
        yield Complaint(("expect", "tenant_id"), "the tid claim is a GUID, never a domain", hint)
    yield from _entra_scopes(keys)


def _entra_scopes(keys: Mapping[str, Any]) -> Iterator[Complaint]:
    scopes, cloud = keys.get("scopes", []), str(keys.get("cloud", "public"))
    scopes = [scopes] if isinstance(scopes, str) else scopes
    if not isinstance(scopes, list) or not all(isinstance(scope, str) and scope for scope in scopes):
        return
    if not scopes:
        hint = f'such as scopes = ["{providers.scope_hint("", cloud)}"]'
        yield Complaint(("scopes",), "is missing" if "scopes" not in keys else "may not be empty", hint)
    for number, scope in enumerate(scopes):
        if not providers.is_default_scope(scope):
            message = "an application asks for a resource and /.default, and gets all that was granted to it"
            yield Complaint(("scopes", number), message, f'write "{providers.scope_hint(scope, cloud)}"')
    if len(scopes) > 1:
        meant = {providers.scope_hint(scope, cloud) for scope in scopes}
        hint = f'write ["{meant.pop()}"]' if len(meant) == 1 else "make one [[profile]] for each resource"
        yield Complaint(("scopes",), "Entra gives a token for one resource at a time: exactly one scope", hint)


def _federated(table: Any) -> Iterator[Complaint]:
    if isinstance(table, dict) and len({"assertion_file", "managed_identity"} & table.keys()) != 1:
        yield Complaint(("federated",), "give exactly one of assertion_file and managed_identity")


def _refresh(table: Any) -> Iterator[Complaint]:
    if not isinstance(table, dict):
        return
    defaults = Refresh()
    at, jitter = table.get("at", defaults.at), table.get("jitter", defaults.jitter)
    if all(isinstance(value, int | float) and 0 <= value < 1 for value in (at, jitter)) and jitter >= at > 0:
        said = "" if "jitter" in table else f" (it is {jitter} by default)"
        hint = f"such as jitter = {at / 5:.3g}"
        yield Complaint(("refresh", "jitter"), f"must be smaller than `at`{said}: it is taken off it", hint)


def _on_refresh(table: Any) -> Iterator[Complaint]:
    if not isinstance(table, dict):
        return
    if not {"reload_unit", "signal", "command"} & table.keys():
        yield Complaint(("on_refresh",), "says nothing to do", "name reload_unit, signal or command")
    command = table.get("command")
    if isinstance(command, list) and command and isinstance(command[0], str) and not command[0].startswith("/"):
        yield Complaint(("on_refresh", "command", 0), "the program is named by its whole path, beginning with /")


def token_file_rules(table: Mapping[str, Any]) -> Iterator[Complaint]:
    """Yield what does not fit together in the table of a token file."""
    kind = table.get("format", "raw")
    templates = [key for key in ("template", "template_file") if key in table]
    if kind == "template":
        if not templates:
            hint = "one of them says what the file holds"
            yield Complaint(("format",), "needs `template` or `template_file`", hint)
        for surplus in templates[1:]:
            yield Complaint((surplus,), "`template` is given as well", "keep one of them")
    elif kind in ("raw", "json", "header", "env"):
        for key in templates:
            yield Complaint((key,), f'is for format = "template" only, not for "{kind}"')
    if "variable" in table and kind != "env":
        yield Complaint(("variable",), 'is for format = "env" only')
    if "newline" in table and kind not in ("raw", "template"):
        yield Complaint(("newline",), 'is for the formats "raw" and "template"; the others end as they must')
    template = table.get("template")
    if isinstance(template, str) and template and (problem := formats.template_problem(template)):
        yield Complaint(("template",), problem)
    yield from _world_readable(table)


def _world_readable(table: Mapping[str, Any]) -> Iterator[Complaint]:
    try:
        mode = values.parse_mode(table["mode"])
    except (KeyError, ValueError):
        return
    if mode & 0o004 and table.get("allow_world_readable") is not True:
        hint = 'use group = "..." or readers = ["user:..."], or allow_world_readable = true'
        yield Complaint(("mode",), "would let everybody read the token", hint)


def agent_rules(table: Mapping[str, Any]) -> Iterator[Complaint]:
    """Yield what does not fit together in [agent]."""
    listen = table.get("metrics_listen")
    remote = table.get("metrics_allow_remote") is True
    if isinstance(listen, str) and ":" in listen and not is_local(listen) and not remote:
        hint = 'write "127.0.0.1:9464" or "unix:PATH", or metrics_allow_remote = true'
        yield Complaint(("metrics_listen",), "this address can be reached from other machines", hint)
    textfile = table.get("metrics_textfile")
    if isinstance(textfile, str) and not textfile.endswith(".prom"):
        yield Complaint(("metrics_textfile",), "node_exporter reads only files whose names end in .prom")


def profile_warnings(profile: Profile) -> Iterator[str]:
    """Yield what works in a profile but deserves a look."""
    if profile.client_secret_file:
        yield f'profile "{profile.name}": a client secret is the last resort: prefer a certificate'
    if profile.federated and profile.federated.managed_identity:
        yield (
            f'profile "{profile.name}": federated.managed_identity is not available in this version yet: '
            "no token will be acquired"
        )

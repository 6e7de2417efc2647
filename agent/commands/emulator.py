"""``token-agent emulator``: a local, strict stand-in for the Microsoft identity platform's token endpoint."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import click

from agent.commands import common, layout

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import timedelta

    from agent.emulator.registry import RegisteredCertificate, Registry

_TENANT = "contoso.onmicrosoft.com"
_ENDS = {signal.SIGTERM, signal.SIGINT}
_ADMIN = """\
\b
Administration, JSON over HTTP at admin_url (Content-Type: application/json):
  GET    /          what is registered, set, and still to go wrong
  POST   /apps      {"client_id": ID, "certificates": [PATH or PEM],
                    "secrets": [TEXT], "roles": [ROLE], "tenants": [NAME],
                    "federated": [{"issuer": ..., "subject": ...,
                    "audience": ..., "certificate": PATH or PEM}]}
  DELETE /apps/ID   remove an app
  POST   /tenants   {"name": "fabrikam.com"}
  POST   /faults    one fault or a list: a script, of which each request
                    takes the first step that concerns it
  DELETE /faults    end all faults (GET lists them)
  GET    /requests  counters and the last 1000 requests, without secrets
                    (DELETE forgets)
  POST   /settings  {"token_lifetime": "10s", "refresh_in": "5s" or null,
                    "single_use": true, "loop_limit": 20 or null,
                    "loop_window": "1m", "clock_offset": SECONDS}
                    (GET shows them)

\b
A fault is {"kind": KIND, "count": N}; N requests are struck (default 1; null:
until it is cleared). "tenant", "client_id" and "endpoint" (token, discovery,
keys) narrow it. Kinds:
"""


def _help() -> str:
    """Return the epilog: examples, then the administration, then every kind of fault."""
    from agent.emulator.faults import KINDS

    lines = common.examples(
        "token-agent emulator --state ./emulator",
        "token-agent emulator --listen 127.0.0.1:8443 --state ./emulator \\",
        "    --app 11111111-1111-4111-8111-111111111111=graph.cer",
        "curl --cacert ./emulator/ca.pem URL/TENANT/discovery/v2.0/keys",
        'curl --json \'{"kind": "throttle", "count": 3}\' ADMIN_URL/faults',
        'curl --json \'[{"kind": "status"}, {"kind": "drop"}]\' ADMIN_URL/faults',
    )
    kinds = "\n".join(line for kind, text in KINDS.items() for line in layout.fold(text, 78, f"  {kind:<15}"))
    return f"{lines}\n\n{_ADMIN}{kinds}"


def _pairs(_context: click.Context, parameter: click.Parameter, values: tuple[str, ...]) -> tuple[tuple[str, str], ...]:
    """Take each CLIENT_ID=SOMETHING apart."""
    pairs = [value.partition("=") for value in values]
    for value, (client_id, _, rest) in zip(values, pairs, strict=True):
        if not (client_id.strip() and rest.strip()):
            raise click.BadParameter(f"{value!r} is not {parameter.metavar}")
    return tuple((client_id.strip(), rest) for client_id, _, rest in pairs)


def _listen(_context: click.Context, _parameter: click.Parameter, value: str) -> tuple[str, int]:
    """Return host and port; anything but loopback is refused."""
    from agent.emulator.server import HOSTS

    host, _, port = value.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not host or not (port.isascii() and port.isdigit()) or int(port) > 65535:  # noqa: PLR2004 - TCP's own
        raise click.BadParameter(f"{value!r} is not HOST:PORT, such as 127.0.0.1:8443; port 0 takes any that is free")
    if host not in HOSTS:
        raise click.BadParameter(
            f"{host!r} is not loopback. The emulator gives tokens to whoever asks, and has no password:"
            " it listens on 127.0.0.1, [::1] or localhost only"
        )
    return host, int(port)


def _tenants(_context: click.Context, _parameter: click.Parameter, values: tuple[str, ...]) -> tuple[str, ...]:
    from agent.emulator.registry import is_tenant_name

    for value in values:
        if not is_tenant_name(value):
            raise click.BadParameter(f"{value!r} is neither a GUID nor a domain, such as {_TENANT}")
    return values


def _lifetime(_context: click.Context, _parameter: click.Parameter, value: str) -> timedelta:
    from datetime import timedelta

    from agent.config.values import parse_duration

    try:
        lifetime = parse_duration(int(value) if value.isascii() and value.isdigit() else value)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None
    if lifetime < timedelta(seconds=1):
        raise click.BadParameter("a token lives at least 1s")
    return lifetime


@click.command(epilog=_help())
@click.option(
    "--listen", default="127.0.0.1:0", show_default=True, callback=_listen, metavar="HOST:PORT", help="Loopback only."
)
@click.option(
    "--state",
    type=click.Path(path_type=Path, file_okay=False),
    required=True,
    metavar="DIR",
    help="Keeps the certificate authority (DIR/ca.pem) and the signing key; made (0700) if missing.",
)
@click.option(
    "--tenant",
    "tenants",
    multiple=True,
    default=[_TENANT],
    show_default=True,
    callback=_tenants,
    metavar="NAME",
    help="A domain or GUID; repeatable. Its GUID follows from its name.",
)
@click.option(
    "--app",
    "apps",
    multiple=True,
    callback=_pairs,
    metavar="CLIENT_ID=CERT.cer",
    help="An app and its certificate (DER or PEM); repeatable, also for a further certificate of the same app.",
)
@click.option(
    "--secret",
    "secrets",
    multiple=True,
    callback=_pairs,
    metavar="CLIENT_ID=FILE",
    help="An app and the file of its client secret.",
)
@click.option(
    "--role",
    "roles",
    multiple=True,
    callback=_pairs,
    metavar="CLIENT_ID=ROLE",
    help="An app role, for the tokens of an app; repeatable.",
)
@click.option(
    "--resource",
    "resources",
    multiple=True,
    metavar="URI",
    help="A resource that exists besides Microsoft Graph; repeatable. Without any, every URI and GUID does.",
)
@click.option(
    "--token-lifetime",
    default="1h",
    show_default=True,
    callback=_lifetime,
    metavar="DURATION",
    help="How long a token lives.",
)
@click.option("-v", "--verbose", is_flag=True, help="A line on standard error for each request.")
def command(  # noqa: PLR0913 - the options of the command
    *,
    listen: tuple[str, int],
    state: Path,
    tenants: tuple[str, ...],
    apps: tuple[tuple[str, str], ...],
    secrets: tuple[tuple[str, str], ...],
    roles: tuple[tuple[str, str], ...],
    resources: tuple[str, ...],
    token_lifetime: timedelta,
    verbose: bool,
) -> int:
    """Run a local, strict stand-in for Entra's token endpoint; no account, no network.

    Prints one JSON line when it is ready: url, ca_file, tenant, admin_url. The authority of a profile is url/tenant,
    and its ca_file is the one named here. Serves discovery, keys and the client credentials grant as Entra does, with
    Entra's errors, until SIGTERM or SIGINT. Assertions are verified strictly, and each is taken once only.
    """
    from agent.emulator import authority, server
    from agent.emulator.settings import Settings

    # Blocked before any thread is there, and waited for below: a signal always ends it cleanly.
    signal.pthread_sigmask(signal.SIG_BLOCK, _ENDS)
    registry = _registry(tenants, resources, apps, secrets, roles)
    host, port = listen
    _try_listening(host, port)
    opened = authority.open_directory(state)
    try:
        emulator = server.Emulator(
            opened.tls,
            opened.signing_key,
            host=host,
            port=port,
            registry=registry,
            settings=Settings(token_lifetime=token_lifetime),
            watch=(lambda line: click.echo(line, err=True)) if verbose else None,
        )
    except OSError as error:
        raise click.BadParameter(f"{host}:{port}: {error.strerror}", param_hint="--listen") from None
    with emulator:
        ready = {"url": emulator.url, "ca_file": str(opened.ca_file), "tenant": tenants[0]}
        click.echo(json.dumps({**ready, "admin_url": emulator.admin_url}))
        signal.sigwait(_ENDS)
    return 0


def _try_listening(host: str, port: int) -> None:
    """Say if the port is taken, before anything is written.

    Raises:
        BusyError: it is.
    """
    import errno
    import socket

    from agent.errors import BusyError

    family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    with socket.socket(family, kind, protocol) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(address)
            probe.listen(1)
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                hint = "name another port; port 0 takes any that is free"
                raise BusyError(f"--listen {host}:{port}: {error.strerror}", hint=hint) from None
            raise click.BadParameter(f"{host}:{port}: {error.strerror}", param_hint="--listen") from None


def _registry(
    tenants: tuple[str, ...],
    resources: tuple[str, ...],
    apps: Iterable[tuple[str, str]],
    secrets: Iterable[tuple[str, str]],
    roles: Iterable[tuple[str, str]],
) -> Registry:
    """Register what the command line names.

    Raises:
        CredentialError: a certificate or secret cannot be used.
    """
    from agent.emulator.registry import App, Registry, Secret

    registry = Registry(tenants, resources)
    for client_id, path in apps:
        registry.add(App(client_id, certificates=[_certificate(Path(path))]))
    for client_id, path in secrets:
        registry.add(App(client_id, secrets=[Secret.of(_secret(Path(path)))]))
    known = {app.client_id.lower() for app in registry.apps()}
    for client_id, role in roles:
        if client_id.lower() not in known:
            raise click.BadParameter(f"{client_id} has no --app or --secret", param_hint="--role")
        registry.add(App(client_id, roles=[role]))
    return registry


def _certificate(path: Path) -> RegisteredCertificate:
    from agent.credentials.reading import read
    from agent.emulator.registry import RegisteredCertificate
    from agent.errors import CredentialError

    try:
        return RegisteredCertificate.load(read(path))
    except ValueError as error:
        hint = "register the public half: the .cer file that `token-agent cert new` makes"
        raise CredentialError(path, str(error), hint=hint) from None


def _secret(path: Path) -> str:
    from agent.credentials.reading import read_password
    from agent.errors import CredentialError

    try:
        secret = (read_password(path) or b"").decode()
    except UnicodeDecodeError:
        raise CredentialError(path, "is not UTF-8 text") from None  # the cause would show the secret
    if not secret:
        raise CredentialError(path, "holds no secret")
    return secret

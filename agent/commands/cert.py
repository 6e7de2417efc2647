"""``token-agent cert``: make a certificate that Entra ID takes, or see what is in one."""

from __future__ import annotations

import json
import os
import shlex
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from agent.commands import common

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from agent.credentials.keyfiles import Certificate, Contents
    from agent.credentials.making import NewCertificate

_FILE = click.Path(path_type=Path)
_DIRECTORY = click.Path(path_type=Path, file_okay=False)


@click.group(
    epilog=common.examples(
        "token-agent cert new --out /etc/token-agent --subject CN=graph",
        "token-agent cert show /etc/token-agent/graph.pem",
    )
)
def command() -> None:
    """Make a certificate for an app registration, or look at one."""


@command.command(
    short_help="Make a key and a self-signed certificate.",
    epilog=common.examples(
        "token-agent cert new --out /etc/token-agent --subject CN=graph",
        "token-agent cert new --out . --subject 'CN=billing,O=Contoso' --bits 4096",
        "token-agent cert new --out . --subject CN=graph --name graph-2027",
    ),
)
@click.option(
    "--out", type=_DIRECTORY, required=True, metavar="DIR", help="Folder of the files; made (0700) if missing."
)
@click.option("--subject", required=True, metavar="CN=...", help="Subject, such as CN=graph or CN=graph,O=Contoso.")
@click.option("--days", type=click.IntRange(1, 36500), default=365, show_default=True, help="How long it is valid.")
@click.option("--bits", type=click.Choice(["2048", "3072", "4096"]), default="2048", show_default=True, help="RSA key.")
@click.option("--name", help="Name of the files without suffix (default: the common name, made safe).")
@click.option("--pfx-password-file", type=_FILE, metavar="FILE", help="Protects the PFX by the password in FILE.")
def new(out: Path, subject: str, days: int, bits: str, name: str | None, pfx_password_file: Path | None) -> None:
    """Make a key and a self-signed certificate: NAME.pem, NAME.pfx, NAME.cer.

    NAME.pem holds key and certificate and is what the agent reads; NAME.pfx is the same for Windows and Key Vault,
    without password unless --pfx-password-file is given; NAME.cer is public, to be uploaded. Files that exist are
    never overwritten.
    """
    from agent.credentials.making import new_certificate

    password = _new_password(pfx_password_file)
    try:
        made = new_certificate(out, subject, name=name, days=days, bits=int(bits), pfx_password=password)
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    for line in _next_steps(made, protected=password is not None):
        click.echo(line)


def _new_password(path: Path | None) -> bytes | None:
    """Return the password for a new PFX; the format itself wants UTF-8, and a user wants one that is there.

    Raises:
        CredentialError: it is no such password.
    """
    from agent.credentials.reading import read_password
    from agent.errors import CredentialError

    password = read_password(path)
    if path is None or password is None:
        return None
    if not password:
        raise CredentialError(path, "holds no password", hint="without --pfx-password-file the PFX has none")
    try:
        password.decode()
    except UnicodeDecodeError:
        raise CredentialError(path, "is not UTF-8 text") from None  # the cause would show the password
    return password


def _next_steps(made: NewCertificate, *, protected: bool) -> Iterator[str]:
    """Yield what was made, and what to do with it."""
    certificate, cer = made.certificate, made.cer.absolute()
    yield "Made a key and a self-signed certificate:"
    yield from _aligned(
        (str(made.pem), "private: key and certificate (0600)"),
        (str(made.pfx), f"private: the same as PKCS#12, {'with' if protected else 'no'} password (0600)"),
        (str(made.cer), "public: the certificate, to be uploaded (0644)"),
    )
    yield ""
    yield from _aligned(
        ("Subject", certificate.subject),
        ("Valid", f"{certificate.not_before:%Y-%m-%d %H:%M} to {certificate.not_after:%Y-%m-%d %H:%M} UTC"),
        ("Thumbprint", f"{certificate.thumbprint}  (SHA-1, in the portal)"),
        ("SHA-256", certificate.thumbprint_sha256),
    )
    yield ""
    if owner := _service_group():
        pem = shlex.quote(str(made.pem.absolute()))
        yield "Let the service read it:"
        yield f"  chgrp {owner} {pem} && chmod 0640 {pem}"
        yield ""
    yield f"Upload {made.cer.name}, never the others:"
    yield "  Entra admin center > App registrations > your app > Certificates & secrets"
    yield "  > Certificates > Upload certificate"
    yield "or, keeping the certificates that are registered already (--append):"
    yield f"  az ad app credential reset --id CLIENT_ID --append --cert {shlex.quote(f'@{cer}')}"
    yield ""
    yield "Then in the configuration:"
    yield "  [[profile]]"
    yield f'  name = "{made.pem.stem}"'
    yield '  tenant = "TENANT"'
    yield '  client_id = "CLIENT_ID"'
    yield '  scopes = ["https://graph.microsoft.com/.default"]'
    yield f"  certificate = {json.dumps(str(made.pem.absolute()), ensure_ascii=False)}"


def _service_group() -> str:
    """Return the group of the installed service where root has made its certificate; empty where there is none."""
    from agent import users
    from agent.doctor import surroundings

    if os.geteuid() != 0:
        return ""
    person = surroundings.agent_user(None, surroundings.unit())
    return users.group_name(person.gid) if person and person.uid != 0 else ""


@command.command(
    short_help="Show what is in a certificate file.",
    epilog=common.examples(
        "token-agent cert show /etc/token-agent/graph.pem",
        "token-agent cert show graph.cer        which one is it in the portal?",
        "token-agent cert show graph.pfx --password-file password",
    ),
)
@click.argument("file", type=_FILE, metavar="FILE")
@click.option("--password-file", type=_FILE, metavar="FILE", help="Holds the password of the key or the PFX.")
def show(file: Path, password_file: Path | None) -> None:
    """Show what is in a certificate file: PEM, PFX/PKCS#12 or DER (.cer), with or without a key.

    The thumbprint is the one the portal shows. Nothing secret is printed.
    """
    from agent.credentials.keyfiles import parse
    from agent.credentials.reading import read, read_password

    contents = parse(file, read(file), read_password(password_file))
    for line in _description(contents, datetime.now(UTC)):
        click.echo(line)


def _description(contents: Contents, now: datetime) -> Iterator[str]:
    """Yield the lines about the certificate that has the key, or else the first, and then about the others."""
    from agent.credentials.keypair import describe_key

    certificates = contents.some_certificates()
    leaf = _leaf(contents)
    kind = describe_key(leaf.public_key) if leaf.public_key else "of a kind unknown here"
    yield from _aligned(
        ("Subject", leaf.subject),
        ("Issuer", "itself (self-signed)" if leaf.self_issued else leaf.issuer),
        ("Serial", f"{leaf.serial:x}"),
        ("Valid from", f"{leaf.not_before:%Y-%m-%d %H:%M:%S} UTC{_ahead(leaf, now)}"),
        ("Valid until", f"{leaf.not_after:%Y-%m-%d %H:%M:%S} UTC ({_end(leaf, now)})"),
        ("Key", kind if kind.startswith("RSA") else f"{kind} (Entra ID wants RSA)"),
        ("Private key", _private_key(contents, leaf)),
        ("Thumbprint", f"{leaf.thumbprint}  (SHA-1, in the portal)"),
        ("SHA-256", leaf.thumbprint_sha256),
        ("x5t#S256", leaf.x5t_s256),
    )
    others = [each for each in certificates if each is not leaf]
    if others:
        yield f"Also in the file ({len(others)}):"
        for other in others:
            yield f"  {other.subject} ({_end(other, now)})"


def _leaf(contents: Contents) -> Certificate:
    from agent.credentials.keypair import certifies
    from agent.errors import CredentialError

    key = contents.key
    if key is None or isinstance(key, CredentialError):
        return contents.certificates[0]
    return next((each for each in contents.certificates if certifies(each, key)), contents.certificates[0])


def _private_key(contents: Contents, leaf: Certificate) -> str:
    from agent.credentials.keypair import certifies
    from agent.errors import CredentialError

    if contents.key is None:
        return "not in this file"
    if isinstance(contents.key, CredentialError):
        return f"in this file, but: {contents.key.message.removeprefix(f'{contents.path}: ')}"
    return (
        "in this file" if certifies(leaf, contents.key) else "in this file, but it does NOT belong to the certificate"
    )


def _ahead(certificate: Certificate, now: datetime) -> str:
    from agent import words

    begins = certificate.not_before - now
    return f" (NOT YET VALID: {words.relative(begins)})" if now < certificate.not_before else ""


def _end(certificate: Certificate, now: datetime) -> str:
    from agent import words

    verb = "expires" if now <= certificate.not_after else "EXPIRED"
    return f"{verb} {words.relative(certificate.not_after - now)}"


def _aligned(*rows: tuple[str, str]) -> Iterable[str]:
    width = max(len(name) for name, _ in rows)
    return (f"{name:{width}}  {value}" for name, value in rows)

"""The configuration as values: what a person may write, checked field by field, frozen.

Everything here is pure. `config` turns files into these values; two profiles that compare equal are the same
job. Names are those of the TOML keys, and the text below each of them is what `token-agent schema` tells editors.
Times are ``timedelta``; paths are absolute. What concerns several keys at once stands in `rules`.
"""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from agent.config.fields import (
    Account,
    Authority,
    Count,
    Duration,
    FilePath,
    Flag,
    Fraction,
    Interval,
    Issuer,
    Listen,
    Mode,
    Name,
    PatternList,
    PositiveDuration,
    Proxy,
    ReaderList,
    ScopeList,
    SignalName,
    TargetPath,
    Tenant,
    Text,
    TextList,
    UnitList,
    Variable,
)
from agent.config.providers import Cloud


class Model(BaseModel):
    """Strict and frozen: an unknown key is an error, and equality is equality of meaning."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, hide_input_in_errors=True, use_attribute_docstrings=True, validate_default=False
    )


class AgentSettings(Model):
    """``[agent]``: how the agent itself behaves."""

    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """The least important events that are logged."""
    log_format: Literal["auto", "console", "journal", "json"] = "auto"
    """auto: console on a terminal, journal under systemd, else json."""
    runtime_dir: FilePath = Path("/run/token-agent")
    """Token files, control socket, status. Default: $RUNTIME_DIRECTORY, else /run/token-agent."""
    state_dir: FilePath = Path("/var/lib/token-agent")
    """What must survive a restart, never secrets. Default: $STATE_DIRECTORY, else /var/lib/token-agent."""
    include: PatternList = ()
    """Files of further [[profile]] entries, as glob patterns; hidden files are left out."""
    watch: Flag = True
    """Reload when configuration, certificates or secrets change on disk."""
    rescan_interval: Interval = timedelta(seconds=10)
    """How often contents are compared: the safety net behind the file watch. At least 1s."""
    max_in_flight: Annotated[Count, Field(ge=1, le=1024)] = 16
    """Acquisitions at once."""
    metrics_listen: Listen | None = None
    """Address of Prometheus metrics and health: loopback, or unix:PATH. No listener without it."""
    metrics_allow_remote: Flag = False
    """Let metrics_listen be reachable from other machines."""
    metrics_textfile: TargetPath | None = None
    """A file of metrics for node_exporter's textfile collector; its name ends in .prom."""


class Certificate(Model):
    """``certificate``: a PEM (certificate and key) or PFX/PKCS#12 file, or the two in files of their own."""

    path: FilePath
    """PEM (certificate and key) or PFX/PKCS#12."""
    key: FilePath | None = None
    """The key, when it is a file of its own."""
    password_file: FilePath | None = None
    """A file that holds the password of the key or PFX."""
    send_chain: Flag = False
    """Send the chain (x5c header): subject name / issuer authentication."""


class Federated(Model):
    """``federated``: the assertion of another identity provider stands in for a certificate; exactly one key."""

    assertion_file: FilePath | None = None
    """A file with another provider's token; read at every use (workload identity federation)."""
    managed_identity: Text | None = None
    """ "system", or the client id of a user-assigned managed identity."""


class Refresh(Model):
    """``[profile.refresh]``: when a token is renewed, in fractions of its observed lifetime."""

    at: Annotated[Fraction, Field(gt=0, lt=1)] = 0.5
    """Fraction of the lifetime; the server's refresh_in wins if sooner."""
    jitter: Annotated[Fraction, Field(ge=0, lt=1)] = 0.1
    """Spread, as a fraction of the lifetime, only ever earlier; smaller than at."""
    min_remaining: Duration = timedelta(minutes=5)
    """Below this the profile is degraded."""


class Expect(Model):
    """``[profile.expect]``: what a token must say before it is published."""

    audience: Text | None = None
    """The aud claim."""
    tenant_id: Text | None = None
    """The tid claim, a GUID."""
    roles: TextList = ()
    """App roles that the token must have, all of them."""


class TokenFile(Model):
    """One token file: where, in which format, and for whom."""

    path: TargetPath
    """Relative to runtime_dir; NAME.token by default."""
    format: Literal["raw", "json", "header", "env", "template"] = "raw"
    """raw: the token alone; json: an object; header: for curl -H @FILE; env: for EnvironmentFile=; template."""
    newline: Flag = False
    """End with a newline; for raw and template."""
    variable: Variable = "ACCESS_TOKEN"
    """The variable's name; for env."""
    template: Text | None = None
    """Text with {access_token}, {expires_on}, {expires_at}, {token_type}, {profile}, {tenant}, {client_id}."""
    template_file: FilePath | None = None
    """A file that holds the template."""
    mode: Mode = 0o600
    """Octal, in quotes. Default 0600, with a group 0640."""
    owner: Account | None = None
    """User to own the file; needs root or CAP_CHOWN."""
    group: Account | None = None
    """Group of the file: one the agent belongs to, else as owner."""
    readers: ReaderList = ()
    """Further readers by POSIX ACL: user:NAME or group:NAME; needs no capability."""
    follow_symlink: Flag = False
    """Write through a symbolic link, which is refused otherwise."""
    allow_world_readable: Flag = False
    """Let mode give everybody the right to read."""

    @model_validator(mode="before")
    @classmethod
    def _mode_follows_group(cls, keys: Any) -> Any:
        return {"mode": "0640", **keys} if isinstance(keys, dict) and keys.get("group") else keys


class Signal(Model):
    """``on_refresh.signal``: a signal to the process named in a pid file."""

    pid_file: FilePath
    """The file that holds the process id."""
    signal: SignalName = "HUP"
    """Its name: HUP, USR1, ..."""


class OnRefresh(Model):
    """``[profile.on_refresh]``: what happens after a new token is on disk; never delays or triggers acquisition."""

    reload_unit: UnitList = ()
    """Units for systemctl reload-or-try-restart."""
    signal: Signal | None = None
    """A signal to send."""
    command: Annotated[tuple[Text, ...], Field(min_length=1)] = ()
    """A program and its arguments, without a shell; {path} is the token file, {profile} the profile's name."""
    timeout: PositiveDuration = timedelta(seconds=30)
    """The longest that each of them may run."""
    min_interval: Duration = timedelta(seconds=10)
    """From one run to the next; several changes within it run it once."""


WARN_BEFORE = (
    *(timedelta(days=days) for days in (30, 14, 7, 3, 1)),
    *(timedelta(hours=hours) for hours in (12, 1)),
)
"""Days for a person to act, and hours for whoever uses certificates that live for a day."""


def _tables(value: object) -> object:
    """A path, a table, or several of them."""
    entries = value if isinstance(value, list | tuple) else (value,)
    return tuple({"path": entry} if isinstance(entry, str) else entry for entry in entries)


class ProfileKeys(Model):
    """``[defaults]``: the keys that all profiles have in common; what a profile says itself wins."""

    tenant: Tenant | None = None
    """GUID or verified domain."""
    cloud: Cloud = Cloud.PUBLIC
    """Microsoft's cloud, with tenant."""
    authority: Authority | None = None
    """Instead of tenant and cloud: https://login.microsoftonline.com/TENANT."""
    oidc_issuer: Issuer | None = None
    """Instead of tenant and cloud: any OpenID provider that takes private_key_jwt."""
    scopes: ScopeList = ()
    """Exactly one RESOURCE/.default for Entra."""
    certificate: Annotated[
        tuple[Certificate, ...],
        Field(min_length=1),
        BeforeValidator(_tables, json_schema_input_type=FilePath | Certificate | list[FilePath | Certificate]),
    ] = ()
    """The application's certificate: a path, or a table; or several, of which the newest that is accepted is used."""
    federated: Federated | None = None
    """Instead of a certificate: the assertion of another provider."""
    client_secret_file: FilePath | None = None
    """Instead of a certificate: a file that holds a client secret. The last resort."""
    ca_file: FilePath | None = None
    """Trust root for the identity provider, instead of the system's."""
    proxy: Proxy | None = None
    """http://[user:password@]host:port, or "environment"."""
    timeout: PositiveDuration = timedelta(seconds=20)
    """For a whole acquisition."""
    refresh: Refresh = Refresh()
    """When a token is renewed."""
    expect: Expect = Expect()
    """What a token must say before it is published."""
    on_refresh: OnRefresh | None = None
    """What happens after a new token is on disk."""
    on_removal: Literal["delete", "keep"] = "delete"
    """What becomes of the token files when the profile is removed from the configuration."""
    on_stop: Literal["delete", "keep"] = "keep"
    """What becomes of the token files at shutdown."""
    on_expiry: Literal["delete", "keep"] = "keep"
    """What becomes of the token files after expiry."""
    warn_before: Annotated[tuple[PositiveDuration, ...], Field(min_length=1)] = WARN_BEFORE
    """How long before a certificate's end to warn of it, each time once."""


class Profile(ProfileKeys):
    """``[[profile]]``: an application, its credential, a scope, and the token files it is kept fresh in."""

    name: Name
    """Unique."""
    client_id: Text
    """The Application (client) ID."""
    token_file: Annotated[
        tuple[TokenFile, ...],
        BeforeValidator(_tables, json_schema_input_type=TargetPath | TokenFile | tuple[TargetPath | TokenFile, ...]),
    ] = ()
    """A path, a table, or several; relative to runtime_dir; NAME.token by default."""

    @property
    def is_entra(self) -> bool:
        """Whether the provider speaks Entra's dialect (scopes end in /.default, tenants, AADSTS codes)."""
        return self.oidc_issuer is None

    @property
    def authority_url(self) -> str:
        """The authority without a trailing slash: what MSAL calls authority or oidc_authority."""
        explicit = self.oidc_issuer or self.authority
        return (explicit or f"https://{self.cloud.host}/{self.tenant}").rstrip("/")


class Document(Model):
    """The configuration file of token-agent; an included file holds [[profile]] entries only."""

    agent: AgentSettings = AgentSettings()
    """How the agent itself behaves; all optional."""
    defaults: ProfileKeys = ProfileKeys()
    """The keys that all profiles have in common; what a profile says itself wins."""
    profile: tuple[Profile, ...] = ()
    """The profiles: each an application, its credential, a scope, and token files."""


class Config(Model):
    """Everything that was read, whole.

    ``sources`` are all files that took part, so that a watch knows what to look at; ``warnings`` are
    things that work but deserve a look.
    """

    path: Path
    agent: AgentSettings
    profiles: tuple[Profile, ...]
    sources: tuple[Path, ...] = ()
    warnings: tuple[str, ...] = ()

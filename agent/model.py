"""The configuration as values: what a person may write, checked field by field, frozen.

Everything here is pure. `config` turns files into these values; two profiles that compare equal are the same
job. Names are those of the TOML keys. Times are ``timedelta``; paths are absolute.
"""

from __future__ import annotations

import re
from datetime import timedelta
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationInfo,
    WithJsonSchema,
    field_validator,
    model_validator,
)

_DURATION = re.compile(r"(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m)?(?:(\d+(?:\.\d+)?)s)?")
_VARIABLES = ("CREDENTIALS_DIRECTORY", "RUNTIME_DIRECTORY", "STATE_DIRECTORY", "CONFIGURATION_DIRECTORY")
_VARIABLE = re.compile(r"\$\{([^}]*)\}")


class Located(str):
    """A string of a configuration file that remembers the directory relative paths start from."""

    __slots__ = ("base",)
    base: Path

    def __new__(cls, text: str, base: Path) -> Located:
        self = super().__new__(cls, text)
        self.base = base
        return self


def parse_duration(value: object) -> timedelta:
    """Return ``"90s"``, ``"10m"``, ``"1h30m"``, ``"2d"`` or a number of seconds as a timedelta.

    Raises:
        ValueError: it is none of these, or negative.
    """
    if isinstance(value, timedelta):
        return value
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 1e9:
        return timedelta(seconds=value)
    match = _DURATION.fullmatch(value.strip()) if isinstance(value, str) and value.strip() else None
    if match is None:
        raise ValueError('a duration is written "90s", "10m", "1h30m", or as a number of seconds')
    days, hours, minutes, seconds = (float(part or 0) for part in match.groups())
    return timedelta(days=days, hours=hours, minutes=minutes, seconds=seconds)


def resolve_path(value: object, info: ValidationInfo) -> object:
    """Expand systemd's directory variables at the start of a path and make it absolute.

    The environment comes in as ``info.context["environ"]``; nothing else is ever expanded.
    """
    if not isinstance(value, str):
        return value
    if not value or "\0" in value:
        raise ValueError("a path may not be empty or hold a NUL")
    text = str(value)
    if match := _VARIABLE.match(text):
        name = match.group(1)
        if name not in _VARIABLES:
            raise ValueError(f"${{{name}}} is not known here; a path may begin with ${{{'}, ${'.join(_VARIABLES)}}}")
        directory = ((info.context or {}).get("environ") or {}).get(name)
        if not directory:
            raise ValueError(f"${{{name}}} is not set: systemd sets it for a service (LoadCredential= and the like)")
        text = directory.split(":")[0] + text[match.end() :]
    base = value.base if isinstance(value, Located) else Path("/")
    return base / text


Duration = Annotated[
    timedelta,
    BeforeValidator(parse_duration),
    WithJsonSchema({"type": ["string", "number"], "examples": ["90s", "10m", "1h30m", 60]}),
]
FilePath = Annotated[Path, BeforeValidator(resolve_path), WithJsonSchema({"type": "string", "minLength": 1})]
Text = Annotated[str, Field(min_length=1)]


def _listed(value: object) -> object:
    """A single string is accepted where a list of strings is meant."""
    return (value,) if isinstance(value, str) else value


TextList = Annotated[
    tuple[Text, ...],
    BeforeValidator(_listed),
    WithJsonSchema({"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]}),
]


class Model(BaseModel):
    """Strict and frozen: an unknown key is an error, and equality is equality of meaning."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


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


class AgentSettings(Model):
    """``[agent]``: how the agent itself behaves."""

    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["auto", "console", "journal", "json"] = "auto"
    runtime_dir: FilePath = Path("/run/token-agent")
    state_dir: FilePath = Path("/var/lib/token-agent")
    include: TextList = ()
    watch: bool = True
    rescan_interval: Duration = timedelta(seconds=10)
    max_in_flight: int = Field(default=16, ge=1, le=1024)
    metrics_listen: str | None = None
    metrics_allow_remote: bool = False
    metrics_textfile: FilePath | None = None


class Certificate(Model):
    """``certificate``: a PEM (certificate and key) or PFX/PKCS#12 file, or the two in files of their own."""

    path: FilePath
    key: FilePath | None = None
    password_file: FilePath | None = None
    send_chain: bool = False


class Federated(Model):
    """``federated``: the assertion of another identity provider stands in for a certificate."""

    assertion_file: FilePath | None = None
    managed_identity: Text | None = None

    @model_validator(mode="after")
    def _exactly_one(self) -> Federated:
        if (self.assertion_file is None) == (self.managed_identity is None):
            raise ValueError("give exactly one of assertion_file and managed_identity")
        return self


class Refresh(Model):
    """``[profile.refresh]``: when a token is renewed, in fractions of its observed lifetime."""

    at: float = Field(default=0.5, gt=0, lt=1)
    jitter: float = Field(default=0.1, ge=0, lt=1)
    min_remaining: Duration = timedelta(minutes=5)

    @model_validator(mode="after")
    def _jitter_leaves_something(self) -> Refresh:
        if self.jitter >= self.at:
            raise ValueError("jitter must be smaller than at: it is taken off it")
        return self


class Expect(Model):
    """``[profile.expect]``: what a token must say before it is published."""

    audience: Text | None = None
    tenant_id: Text | None = None
    roles: TextList = ()


class TokenFile(Model):
    """One token file: where, in which format, and for whom."""

    path: FilePath
    format: Literal["raw", "json", "header", "env", "template"] = "raw"
    newline: bool = False
    variable: Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")] = "ACCESS_TOKEN"
    template: str | None = None
    template_file: FilePath | None = None
    mode: int = 0o600
    owner: Text | None = None
    group: Text | None = None
    readers: TextList = ()
    follow_symlink: bool = False
    allow_world_readable: bool = False


class Signal(Model):
    """``on_refresh.signal``: a signal to the process named in a pid file."""

    pid_file: FilePath
    signal: Text = "HUP"


class OnRefresh(Model):
    """``[profile.on_refresh]``: what happens after a new token is on disk."""

    reload_unit: TextList = ()
    signal: Signal | None = None
    command: tuple[Text, ...] = ()
    timeout: Duration = timedelta(seconds=30)
    min_interval: Duration = timedelta(seconds=10)


class ProfileKeys(Model):
    """The keys that a profile and ``[defaults]`` have in common."""

    tenant: Text | None = None
    cloud: Cloud = Cloud.PUBLIC
    authority: Text | None = None
    oidc_issuer: Text | None = None
    scopes: TextList = ()
    certificate: Certificate | None = None
    federated: Federated | None = None
    client_secret_file: FilePath | None = None
    ca_file: FilePath | None = None
    proxy: Text | None = None
    timeout: Duration = timedelta(seconds=20)
    refresh: Refresh = Refresh()
    expect: Expect = Expect()
    on_refresh: OnRefresh | None = None
    on_removal: Literal["delete", "keep"] = "delete"
    on_stop: Literal["delete", "keep"] = "keep"
    on_expiry: Literal["delete", "keep"] = "keep"

    @field_validator("certificate", mode="before")
    @classmethod
    def _short_form(cls, value: Any) -> Any:
        return {"path": value} if isinstance(value, str) else value


class Profile(ProfileKeys):
    """An application, its credential, a scope, and the token files it is kept fresh in."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=128)]
    client_id: Text
    token_file: tuple[TokenFile, ...] = ()

    @property
    def is_entra(self) -> bool:
        """Whether the provider speaks Entra's dialect (scopes end in /.default, tenants, AADSTS codes)."""
        return self.oidc_issuer is None

    @property
    def authority_url(self) -> str:
        """The authority without a trailing slash: what MSAL calls authority or oidc_authority."""
        explicit = self.oidc_issuer or self.authority
        return (explicit or f"https://{self.cloud.host}/{self.tenant}").rstrip("/")


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

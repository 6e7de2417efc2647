"""The kinds of values of the configuration, as pydantic knows them, each with the JSON Schema of what people write."""

from __future__ import annotations

import re
import signal
from datetime import timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from pydantic import AfterValidator, BeforeValidator, Field, PlainSerializer, ValidationInfo, WithJsonSchema

from agent.config import providers, proxies, values
from agent.config.values import Located

if TYPE_CHECKING:
    from collections.abc import Mapping


def _variables(info: ValidationInfo) -> Mapping[str, str]:
    """Return the environment that `config` was given; models that are built otherwise have none."""
    variables: Mapping[str, str] = info.context or {}
    return variables


def _base(value: str) -> Path:
    return value.base if isinstance(value, Located) else Path("/")


def _path(value: object, info: ValidationInfo) -> object:
    if isinstance(value, str):
        return values.resolve_path(str(value), _variables(info), _base(value))
    return value


def _target(value: object, info: ValidationInfo) -> object:
    """A path of a file to write: its name has to be one."""
    if isinstance(value, str):
        if values.names_a_directory(value):
            raise ValueError("this names a directory; name a file in it")
        if len(value.rpartition("/")[2].encode(errors="surrogateescape")) > values.FILE_NAME_MAX:
            raise ValueError(f"a file name has at most {values.FILE_NAME_MAX} bytes")
    return _path(value, info)


def _pattern(value: object, info: ValidationInfo) -> object:
    if isinstance(value, str):
        return values.resolve_pattern(str(value), _variables(info), _base(value))
    return value


def _listed(value: object) -> object:
    """A single string is accepted where a list of strings is meant."""
    return (value,) if isinstance(value, str) else value


def _positive(value: timedelta) -> timedelta:
    if value <= timedelta(0):
        raise ValueError("must be more than nothing")
    return value


def _second(value: timedelta) -> timedelta:
    if value < timedelta(seconds=1):
        raise ValueError("must be at least one second")
    return value


def _signal(value: str) -> str:
    name = value.upper().removeprefix("SIG")
    if f"SIG{name}" not in signal.Signals.__members__:
        raise ValueError('this is not the name of a signal; "HUP" and "USR1" are')
    return name


def _unit(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9:_.\\@][A-Za-z0-9:_.\\@-]*", value):
        raise ValueError('this is not the name of a unit; "billing.service" is')
    return value


def _listen(value: object, info: ValidationInfo) -> object:
    """Make sure of HOST:PORT or unix:PATH; whether the host may be a remote one is a rule of its own."""
    if not isinstance(value, str):
        return value
    if value.startswith("unix:"):
        return f"unix:{values.resolve_path(value.removeprefix('unix:'), _variables(info), _base(value))}"
    host, _, port = value.rpartition(":")
    if not re.fullmatch(r"[0-9]{1,5}", port) or int(port) > 65535 or not re.fullmatch(r"[\w.-]+|\[[\w:.]+\]", host):  # noqa: PLR2004 - 16 bits
        raise ValueError('an address is written "127.0.0.1:9464", "[::1]:9464" or "unix:/run/token-agent/metrics.sock"')
    return value


def is_local(listen: str) -> bool:
    """Tell whether an address of ``metrics_listen`` can be reached from this machine only."""
    host = listen.rpartition(":")[0].strip("[]")
    if listen.startswith("unix:") or host.lower() == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


Text = Annotated[str, Field(min_length=1)]
Flag = Annotated[bool, Field(strict=True)]
Count = Annotated[int, Field(strict=True)]
Fraction = Annotated[float, Field(strict=True, allow_inf_nan=False)]
_DURATION_SCHEMA = {"type": ["string", "number"], "minimum": 0, "examples": ["90s", "10m", "1h30m", 60]}
Duration = Annotated[timedelta, BeforeValidator(values.parse_duration), WithJsonSchema(_DURATION_SCHEMA)]
PositiveDuration = Annotated[Duration, AfterValidator(_positive)]
Interval = Annotated[Duration, AfterValidator(_second)]

_TEXT_SCHEMA = {"type": "string", "minLength": 1}
FilePath = Annotated[Path, BeforeValidator(_path), WithJsonSchema(_TEXT_SCHEMA)]
TargetPath = Annotated[Path, BeforeValidator(_target), WithJsonSchema(_TEXT_SCHEMA)]
Pattern = Annotated[str, BeforeValidator(_pattern), WithJsonSchema(_TEXT_SCHEMA)]
Listen = Annotated[str, BeforeValidator(_listen), WithJsonSchema(_TEXT_SCHEMA)]
Mode = Annotated[
    int,
    BeforeValidator(values.parse_mode),
    WithJsonSchema({"type": ["string", "integer"], "pattern": "^(0o|0)?[0-7]{3}$", "examples": ["0600", "0640"]}),
]
Name = Annotated[
    Text,
    AfterValidator(values.check_name),
    WithJsonSchema({"type": "string", "pattern": values.NAME_PATTERN, "maxLength": values.NAME_LENGTH}),
]
Variable = Annotated[
    str,
    AfterValidator(values.check_variable),
    WithJsonSchema({"type": "string", "pattern": values.VARIABLE_PATTERN}),
]
Account = Annotated[Text, AfterValidator(values.check_account)]
Reader = Annotated[Text, AfterValidator(values.check_reader)]
Tenant = Annotated[Text, AfterValidator(providers.check_tenant)]
Authority = Annotated[Text, AfterValidator(providers.parse_authority)]
Issuer = Annotated[Text, AfterValidator(providers.check_issuer)]
Scope = Annotated[Text, AfterValidator(providers.check_scope)]
Proxy = Annotated[Text, AfterValidator(proxies.parse_proxy), PlainSerializer(lambda url: url.shown, return_type=str)]
SignalName = Annotated[Text, AfterValidator(_signal)]
Unit = Annotated[Text, AfterValidator(_unit)]

# One string is accepted wherever a list of strings is meant.
TextList = Annotated[tuple[Text, ...], BeforeValidator(_listed, json_schema_input_type=Text | tuple[Text, ...])]
PatternList = Annotated[
    tuple[Pattern, ...], BeforeValidator(_listed, json_schema_input_type=Pattern | tuple[Pattern, ...])
]
ScopeList = Annotated[tuple[Scope, ...], BeforeValidator(_listed, json_schema_input_type=Scope | tuple[Scope, ...])]
ReaderList = Annotated[tuple[Reader, ...], BeforeValidator(_listed, json_schema_input_type=Reader | tuple[Reader, ...])]
UnitList = Annotated[tuple[Unit, ...], BeforeValidator(_listed, json_schema_input_type=Unit | tuple[Unit, ...])]

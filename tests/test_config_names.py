"""Tenants, scopes, modes: the small parsers of the configuration, by cases and by properties."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.config import providers, values

GUID = "ace7a10d-aaaa-4a01-8663-1440b6b78cb9"
GRAPH = "https://graph.microsoft.com/.default"


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("https://graph.microsoft.com/User.Read", GRAPH),
        ("https://graph.microsoft.com", GRAPH),
        ("https://graph.microsoft.com/", GRAPH),
        ("https://graph.microsoft.com/.default/", GRAPH),
        ("https://graph.microsoft.com/.Default", GRAPH),
        ("User.Read", GRAPH),
        ("openid", GRAPH),
        (".default", GRAPH),
        ("/.default", GRAPH),
        ("", GRAPH),
        ("https://vault.azure.net/", "https://vault.azure.net/.default"),
        ("https://management.azure.com/user_impersonation", "https://management.azure.com/.default"),
        ("api://billing", "api://billing/.default"),
        ("api://billing/access_as_user", "api://billing/.default"),
        (f"api://{GUID}/Invoices.Read", f"api://{GUID}/.default"),
        ("api://contoso.example/billing/Invoices.Read", "api://contoso.example/billing/.default"),
        (GUID, f"{GUID}/.default"),
        (f"{GUID}/Invoices.Read", f"{GUID}/.default"),
    ],
)
def test_the_scope_that_was_meant(written: str, meant: str) -> None:
    """A delegated scope, or a resource alone, leads to the scope an application has to ask for."""
    assert not providers.is_default_scope(written)
    assert providers.scope_hint(written) == meant
    assert providers.is_default_scope(meant)


def test_the_graph_of_each_cloud() -> None:
    """A permission of Microsoft Graph leads to the Graph of the profile's cloud."""
    assert providers.scope_hint("User.Read", "usgov") == "https://graph.microsoft.us/.default"
    assert providers.scope_hint("User.Read", "china") == "https://microsoftgraph.chinacloudapi.cn/.default"
    assert providers.scope_hint("User.Read", "mars") == GRAPH


@given(st.text(max_size=30))
def test_a_hint_is_always_a_scope_that_is_accepted(text: str) -> None:
    """Whatever was written, what is proposed instead would be accepted."""
    with contextlib.suppress(ValueError):
        providers.check_scope(text)
        hint = providers.scope_hint(text)
        assert providers.is_default_scope(hint)
        assert providers.check_scope(hint) == hint


@given(st.text(max_size=40))
def test_an_authority_is_normal_or_refused(text: str) -> None:
    """What is accepted as an authority is https, host and tenant, and stays the same when read again."""
    for candidate in (text, f"https://h.example/{text}", f"https://{text}/tenant"):
        with contextlib.suppress(ValueError):
            authority = providers.parse_authority(candidate)
            assert authority.startswith("https://")
            assert authority.count("/") == 3
            assert not set(authority) & set("@?# \\")
            assert providers.parse_authority(authority) == authority


@pytest.mark.parametrize("tenant", ["contoso.onmicrosoft.com", "contoso.com", "a-b.c1.example", GUID, GUID.upper()])
def test_tenants(tenant: str) -> None:
    """A tenant is a GUID or a domain."""
    assert providers.check_tenant(tenant) == tenant


@pytest.mark.parametrize(
    "text",
    ["", "x", "a b.example", "a.example/", "-a.example", "a.example\n", "ä.example", f"{GUID}x", "a." * 130 + "b"],
)
def test_no_tenants(text: str) -> None:
    """Anything else is none, be it only by a blank or a line end."""
    with pytest.raises(ValueError, match="a tenant is a GUID or a verified domain"):
        providers.check_tenant(text)


@given(st.integers(-10, 0o10000))
def test_a_mode_is_never_more_than_reading_for_others(number: int) -> None:
    """As a number or in octal, a mode that is accepted lets the owner read, and others do no more than read."""
    for written in (number, f"{number:o}", f"0{number:03o}", f"0o{number:03o}", str(number)):
        with contextlib.suppress(ValueError):
            mode = values.parse_mode(written)
            assert mode & 0o400
            assert not mode & 0o7113
            assert written == mode or int(str(written).removeprefix("0o"), 8) == mode


@given(st.integers(0, 999))
def test_a_decimal_that_looks_octal_is_refused(number: int) -> None:
    """A decimal number whose digits are a mode in octal is never silently taken for either."""
    digits = str(number)
    with contextlib.suppress(ValueError):
        values.parse_mode(f"0{digits}")
        with pytest.raises(ValueError, match=f'write "0{digits}" in quotes'):
            values.parse_mode(number)


@given(st.floats(0, 1e8), st.integers(0, 5), st.integers(0, 99), st.integers(0, 99), st.integers(0, 99))
def test_durations_add_up(number: float, days: int, hours: int, minutes: int, seconds: int) -> None:
    """A number is seconds; units add up."""
    assert values.parse_duration(number).total_seconds() == pytest.approx(number, abs=1e-6)
    total = ((days * 24 + hours) * 60 + minutes) * 60 + seconds
    assert values.parse_duration(f"{days}d{hours}h{minutes}m{seconds}s").total_seconds() == total

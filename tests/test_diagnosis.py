"""A provider's answer without a token becomes an error of the right class, with a hint and without secrets."""

from __future__ import annotations

import base64
import email.utils
import random
import re
from datetime import UTC, datetime, timedelta
from typing import Any

import jwt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent import aadsts, harmless
from agent.diagnosis import CREDENTIAL_CODES, LOOP_PAUSE, classify, parse_date, parse_retry_after
from agent.errors import RejectedError, TransientError

APP = "ace7a10d-aaaa-4a01-8663-1440b6b78cb9"
THUMBPRINT = "8BDEB513EAC11E9E9DA752EB9D5087F317F6D931"
SUBJECT = f"certificate {THUMBPRINT} of app {APP}"
NOW = datetime(2026, 11, 25, 2, 0, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
HOUR = timedelta(hours=1)
TAIL = (
    "\r\nTrace ID: 62d60ed5-56c3-45a0-b960-93d4ec917d00\r\nCorrelation ID: 43f6c5a9-1ff9-4e6a-9dc8-b8b5fa539613"
    "\r\nTimestamp: 2026-11-25 02:00:09Z"
)
NOT_REGISTERED = (
    "The certificate with identifier used to sign the client assertion is not registered on application. [Reason - "
    f"The key was not found., Thumbprint of key used by client: '{THUMBPRINT}', Please visit the Azure Portal, Graph "
    f"Explorer or directly use MS Graph to see configured keys for app Id '{APP}'. Review the documentation at "
    "https://docs.microsoft.com/en-us/graph/deployments to determine the corresponding service endpoint]. "
    "Alternatively, SNI may be configured on the app."
)
OUT_OF_TIME = (
    "Client assertion is not within its valid time range. Current time: 2026-11-25T02:00:03.6755165Z, assertion valid "
    "from 1970-01-01T00:00:00.0000000Z, expiry time of assertion 2026-11-25T00:10:00.0000000Z."
)


def entra(number: int, text: str = "Something is wrong.", error: str = "invalid_client") -> dict[str, Any]:
    """Return an error as Entra ID sends it."""
    return {
        "error": error,
        "error_description": f"AADSTS{number}: {text}{TAIL}",
        "error_codes": [number],
        "timestamp": "2026-11-25 02:00:09Z",
        "trace_id": "62d60ed5-56c3-45a0-b960-93d4ec917d00",
        "correlation_id": "43f6c5a9-1ff9-4e6a-9dc8-b8b5fa539613",
        "error_uri": f"https://login.microsoftonline.com/error?code={number}",
    }


def diagnose(
    status: int,
    parsed: dict[str, Any] | None,
    *,
    retry_after: timedelta | None = None,
    content_type: str | None = "application/json; charset=utf-8",
    skew: timedelta | None = timedelta(0),
) -> TransientError | RejectedError:
    return classify(status, parsed, retry_after=retry_after, content_type=content_type, subject=SUBJECT, skew=skew)


def transient(*args: Any, **kwargs: Any) -> TransientError:
    error = diagnose(*args, **kwargs)
    assert isinstance(error, TransientError)
    return error


def rejected(*args: Any, **kwargs: Any) -> RejectedError:
    error = diagnose(*args, **kwargs)
    assert isinstance(error, RejectedError)
    return error


def test_unregistered_certificate() -> None:
    """An unknown certificate is refused by code, reason and thumbprint; the hint names it and where to upload it."""
    error = rejected(401, entra(700027, NOT_REGISTERED))
    assert error.code == "AADSTS700027"
    assert error.correlation_id == "43f6c5a9-1ff9-4e6a-9dc8-b8b5fa539613"
    assert error.message == (
        "AADSTS700027: The certificate with identifier used to sign the client assertion is not registered on "
        f"application. [Reason - The key was not found., Thumbprint of key used by client: '{THUMBPRINT}']"
    )
    assert error.hint.startswith(f"upload the .cer of {SUBJECT}")
    assert f"App registrations > app {APP} > Certificates & secrets" in error.hint


@pytest.mark.parametrize(
    ("status", "number", "error"),
    [
        (401, 7000215, "invalid_client"),
        (400, 700016, "unauthorized_client"),
        (400, 70011, "invalid_scope"),
        (400, 500011, "invalid_resource"),
        (400, 90002, "invalid_tenant"),
        (400, 53003, "invalid_grant"),
        (400, 70021, "invalid_request"),
        (400, 999999, "invalid_request"),
        (403, 999999999, "something_new"),
    ],
)
def test_refusals_need_a_person(status: int, number: int, error: str) -> None:
    """What the provider refuses is permanent, known code or not, and says what to do."""
    refusal = rejected(status, entra(number, error=error), retry_after=MINUTE)
    assert refusal.code == f"AADSTS{number}"
    assert refusal.message == f"AADSTS{number}: Something is wrong."
    assert refusal.hint


@pytest.mark.parametrize("error", ["temporarily_unavailable", "server_error", "slow_down"])
@pytest.mark.parametrize("number", [70011, 999999])
def test_oauth_error_outweighs_the_number(error: str, number: int) -> None:
    """An OAuth error that passes is transient whatever number comes with it: numbers may change."""
    assert not transient(400, entra(number, error=error)).unreachable


@pytest.mark.parametrize("number", [50033, 90006, 90012, 90033, 90090])
def test_trouble_of_the_service_passes(number: int) -> None:
    """Codes that Microsoft documents as passing are transient also with status 400, with the provider's wish kept."""
    error = transient(400, entra(number, error="invalid_grant"), retry_after=MINUTE)
    assert (error.unreachable, error.retry_after) == (False, MINUTE)


@pytest.mark.parametrize("number", [50196, 90055])
@pytest.mark.parametrize("status", [400, 429])
def test_loop_protection_is_given_time(number: int, status: int) -> None:
    """When Entra's loop protection strikes the agent pauses for five minutes, or as long as it is told."""
    assert transient(status, entra(number, error="invalid_grant")).retry_after == LOOP_PAUSE == 5 * MINUTE
    assert transient(status, entra(number, error="invalid_grant"), retry_after=HOUR).retry_after == HOUR


def test_plain_text_throttle() -> None:
    """Entra's throttle in plain text concerns the app: the provider as a whole is not called unreachable."""
    error = transient(429, None, content_type="text/plain", retry_after=MINUTE)
    assert (error.unreachable, error.retry_after, error.code) == (False, MINUTE, None)
    assert error.message == "HTTP 429 Too Many Requests"
    assert f"throttles app {APP}" in error.hint


@pytest.mark.parametrize("status", [500, 502, 503, 504, 599])
@pytest.mark.parametrize("parsed", [None, {}, {"error": "server_error"}, entra(700027)])
def test_server_errors_mean_the_provider(status: int, parsed: dict[str, Any] | None) -> None:
    """With 5xx the provider as a whole does not work, whatever the body says, and its Retry-After counts."""
    error = transient(status, parsed, retry_after=MINUTE)
    assert (error.unreachable, error.retry_after) == (True, MINUTE)


@pytest.mark.parametrize("status", [200, 204, 302, 400, 401, 403, 404, 502])
@pytest.mark.parametrize("content_type", ["text/html; charset=utf-8", "text/plain", None])
def test_pages_come_from_something_in_between(status: int, content_type: str | None) -> None:
    """A page instead of JSON is a proxy's or a portal's: transient, unreachable, and named by content type."""
    error = transient(status, None, content_type=content_type)
    assert error.unreachable
    assert "proxy" in error.hint
    assert (content_type.split(";")[0] if content_type else "no content type") in error.hint


def test_proxy_that_asks_for_a_password() -> None:
    """407 is about the proxy, even if it answers in JSON."""
    for parsed in (None, {"error": "invalid_client"}):
        error = transient(407, parsed, content_type="text/html")
        assert error.unreachable
        assert "`proxy`" in error.hint


def test_redirects_are_not_the_providers() -> None:
    """A redirect with JSON in it is still not an answer of a token endpoint."""
    assert transient(307, {"error": "invalid_request"}).unreachable


def test_slow_request() -> None:
    """408 is transient and no reason to keep others from the provider."""
    error = transient(408, None, content_type=None)
    assert not error.unreachable
    assert "network" in error.hint


@pytest.mark.parametrize(
    ("skew", "words"), [(2 * HOUR, "2 h ahead of the provider's"), (-3 * MINUTE, "3 min behind the provider's")]
)
@pytest.mark.parametrize("number", [700024, 50012])
def test_clock_that_is_off(skew: timedelta, words: str, number: int) -> None:
    """An assertion out of its time with a clock that is off is transient; the hint names the clock and by how much."""
    error = transient(401, entra(number, OUT_OF_TIME), skew=skew)
    assert error.hint.startswith(f"this machine's clock is {words}")
    assert error.code == f"AADSTS{number}"
    assert error.message.startswith(f"AADSTS{number}: Client assertion is not within its valid time range. Current")


@pytest.mark.parametrize("skew", [None, timedelta(0), timedelta(seconds=59), timedelta(seconds=-59)])
def test_clock_that_is_right(skew: timedelta | None) -> None:
    """An assertion out of its time with a good or unknown clock is a refusal: the cause is elsewhere."""
    assert "ahead" not in rejected(401, entra(700024, OUT_OF_TIME), skew=skew).hint


@pytest.mark.parametrize("parsed", [entra(700027), entra(1000502), {"error": "invalid_client"}])
def test_great_skew_is_mentioned(parsed: dict[str, Any]) -> None:
    """With a clock off by more than five minutes every refused credential also tells of it; other refusals do not."""
    hint = rejected(401, parsed, skew=-6 * MINUTE).hint
    assert hint.startswith("this machine's clock is 6 min behind the provider's: set it right")
    assert "clock is" not in rejected(401, parsed, skew=4 * MINUTE).hint
    assert "clock is" not in rejected(400, entra(70011, error="invalid_scope"), skew=-6 * MINUTE).hint


def test_broken_json_is_no_page() -> None:
    """An answer that calls itself JSON and is none is not blamed on a captive portal."""
    hint = transient(200, None, content_type="application/json; charset=utf-8").hint
    assert "broken" in hint
    assert "portal" not in hint


def test_other_providers() -> None:
    """Without an AADSTS code the OAuth error is the code, and message and hint are about it, not about Entra ID."""
    error = rejected(401, {"error": "unauthorized_client", "error_description": "Client not enabled"})
    assert (error.code, error.message) == ("unauthorized_client", "unauthorized_client: Client not enabled")
    assert "client_credentials" in error.hint
    error = rejected(401, {"error": "invalid_client"})
    assert error.message == "invalid_client: the credential is refused"
    assert SUBJECT in error.hint
    assert "Entra" not in error.hint


def test_wrong_place() -> None:
    """A JSON 404, as Keycloak answers for a realm that it does not have, asks for the authority to be checked."""
    error = rejected(404, {"error": "Realm does not exist"})
    assert (error.code, error.message) == (None, "HTTP 404 Not Found: Realm does not exist")
    assert "oidc_issuer" in error.hint


def test_errors_of_gateways() -> None:
    """The nested form of gateways and resource APIs is read as well."""
    error = rejected(403, {"error": {"code": "Forbidden", "message": "Blocked by policy. Ask IT."}})
    assert (error.code, error.message) == ("Forbidden", "Forbidden: Blocked by policy. Ask IT.")


def test_most_telling_code() -> None:
    """Of several codes the exact one counts, not the one that introduces it, nor one that is unknown here."""
    parsed = {
        "error": "invalid_client",
        "error_description": f"AADSTS70002: Error validating credentials. AADSTS50012: Invalid signature.{TAIL}",
        "error_codes": [70002, 50012],
    }
    error = rejected(401, parsed)
    assert (error.code, error.message) == ("AADSTS50012", "AADSTS50012: Invalid signature.")
    assert rejected(401, {"error": "invalid_client", "error_codes": [123456, 700027]}).code == "AADSTS700027"


def test_credential_codes_are_those_of_the_class() -> None:
    """The codes that set off reading the credential again are exactly the catalogue's credential codes."""
    of_class = {f"AADSTS{name}" for name, entry in aadsts.entries().items() if entry.kind == "K" and name.isdigit()}
    assert of_class == CREDENTIAL_CODES
    named_by_microsoft = {700027, 700024, 7000214, 1000502, 7000274, 7000277}
    assert {f"AADSTS{number}" for number in named_by_microsoft} <= CREDENTIAL_CODES


@pytest.mark.parametrize("entry", aadsts.entries().values(), ids=lambda entry: entry.name)
def test_catalogue_is_complete(entry: aadsts.Entry) -> None:
    """Every entry has a class, a meaning and a fix in plain sentences, with nothing left to fill in."""
    fix = entry.fix_for(SUBJECT)
    assert entry.kind in aadsts.KINDS
    assert 10 < len(entry.meaning) < 100
    assert len(fix) > 10
    assert not re.search(r"[{}=] *$|\{(subject|app|registration|enterprise)\}|^=", fix)
    assert (entry.meaning + fix).isprintable()


def test_catalogue_is_large_enough() -> None:
    """The catalogue knows the codes of apps: a hundred and more."""
    assert sum(name.isdigit() and entry.kind != "U" for name, entry in aadsts.entries().items()) > 110


def secrets_of_all_kinds() -> list[str]:
    """Return made-up secrets: an assertion, secrets as Entra and Keycloak make them, keys in base64."""
    chance = random.Random(7)  # noqa: S311 - made up
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
    assertion = jwt.encode({"iss": APP, "aud": "https://login.microsoftonline.com/x"}, "k" * 32)
    return [
        assertion,
        assertion.rpartition(".")[0],
        "abc8Q~dEf1GhI2jKl3mNo4pQr5sTu6vWx7yZa8bC",
        *("".join(chance.choices(letters, k=32)) for _ in range(20)),
        *(base64.b64encode(chance.randbytes(256)).decode() for _ in range(20)),
        *(base64.urlsafe_b64encode(chance.randbytes(33)).decode() for _ in range(20)),
    ]


@pytest.mark.parametrize("secret", secrets_of_all_kinds())
@pytest.mark.parametrize(
    "text", ["Value {} is wrong.", "[Reason - '{}', more]", "bad={}&x=1", "https://host/path?a={}", '"v":"{}"', "{}"]
)
def test_echoed_secrets_are_withheld(secret: str, text: str) -> None:
    """An assertion, secret or key that the provider echoes does not reach message, hint or code, not even in part."""
    said = text.format(secret)
    for parsed in (
        entra(7000215, said),
        {"error": "invalid_client", "error_description": said},
        {"error": said},
        {"error": {"code": said, "message": said}},
    ):
        error = diagnose(401, parsed)
        shown = f"{error.message} {error.hint} {error.code} {error.correlation_id}"
        parts = [part for part in re.split(r"[./+=_-]", secret) if len(part) > 9]
        assert parts
        assert not [part for part in (secret, *parts) if part in shown]


def test_short_tokens_are_withheld() -> None:
    """A JWT is withheld however short it is: here one without claims and signature."""
    assert "eyJ" not in diagnose(401, entra(50013, "Assertion eyJhbGciOiJub25lIn0.e30. is malformed.")).message


def test_secrets_in_named_parameters_are_withheld() -> None:
    """The value of a parameter that is known to be secret is withheld, however short it is."""
    for said in ("client_secret=hunter2&x=1", 'got "client_secret": "hunter2"', "Client_Secret: hunter2"):
        assert "hunter2" not in diagnose(401, entra(7000215, said)).message


@pytest.mark.parametrize(
    "name",
    [
        THUMBPRINT,
        "4f5b0e8c2d7a49e0b1c3d5e7f90a2b4c6d8e0f1a3b5c7d9e1f2a4b6c8d0e2f4a",
        APP,
        "https://graph.microsoft.com/User.ReadWrite.All",
        "https://contoso-my2.sharepoint.com/Sites.FullControl.All",
        "api://AzureADTokenExchangeUSGov2/.default",
        "system:serviceaccount:billing-production-2:invoice-worker",
        "repo:Contoso/Invoices2026:environment:Production1",
        "InvoiceService2026Production",
    ],
)
def test_names_stay_readable(name: str) -> None:
    """Thumbprints, ids, resources and subjects are what an operator needs: they are shown."""
    assert name in diagnose(400, entra(500011, f"The resource principal named {name} was not found.")).message


def test_terminals_are_safe() -> None:
    """Control characters, line ends and direction marks of the provider do not reach the terminal."""
    error = diagnose(401, entra(700027, "a\x1b[2Jb\r\nc\u202ed\u2028e\x9bf\ud800"))
    assert error.message == "AADSTS700027: a [2Jb c d e f"


@pytest.mark.parametrize("text", ["word " * 20_000, "x" * 100_000, "One. " * 20_000, "[" * 5000, "eyJ" * 30_000])
def test_long_descriptions_are_cut_anywhere(text: str) -> None:
    """However long the provider's words are, the message is short."""
    assert len(diagnose(401, entra(700027, text)).message) <= harmless.MAX_TEXT + 20


def test_long_descriptions_are_cut_at_sentences() -> None:
    """Where there are sentences, whole ones are shown."""
    message = diagnose(401, entra(700027, "This is a sentence. " * 100)).message
    assert message.endswith("a sentence. This is a sentence.")
    assert len(message) > harmless.MAX_TEXT / 2


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=8,
)
ANSWERS = st.fixed_dictionaries(
    {},
    optional={
        "error": JSON | st.sampled_from([name for name in aadsts.entries() if not name.isdigit()]),
        "error_description": JSON | st.text().map("AADSTS700027: {}".format) | st.from_regex(r"AADSTS\d*: .*"),
        "error_codes": JSON | st.lists(st.integers(0, 10**10), max_size=3),
        "correlation_id": JSON,
        "message": JSON,
    },
)


@settings(deadline=None)
@given(
    status=st.integers(-1, 1000),
    parsed=st.none() | ANSWERS | st.dictionaries(st.text(), JSON, max_size=3),
    retry_after=st.none() | st.timedeltas(min_value=timedelta(0)),
    content_type=st.none() | st.text(),
    subject=st.text(),
    skew=st.none() | st.timedeltas(min_value=timedelta(days=-999), max_value=timedelta(days=999)),
)
def test_any_answer_can_be_classified(
    status: int,
    parsed: dict[str, Any] | None,
    retry_after: timedelta | None,
    content_type: str | None,
    subject: str,
    skew: timedelta | None,
) -> None:
    """Whatever a provider answers, the result is an error of ours in one printable line of bounded length."""
    error = classify(status, parsed, retry_after=retry_after, content_type=content_type, subject=subject, skew=skew)
    assert isinstance(error, TransientError | RejectedError)
    for text in (error.message, error.code or "", error.correlation_id or ""):
        assert text.isprintable()
        assert len(text) < harmless.MAX_TEXT + 100
    assert error.hint


@settings(deadline=None)
@given(st.datetimes(min_value=datetime(1970, 1, 1), max_value=datetime(2069, 12, 31)))  # noqa: DTZ001 - UTC is put in
def test_all_three_forms_of_dates(naive: datetime) -> None:
    """A date is read in each of the three forms of RFC 9110, as the standard library writes them."""
    date = naive.replace(microsecond=0, tzinfo=UTC)
    assert parse_date(email.utils.format_datetime(date, usegmt=True)) == date
    assert parse_date(f"{date:%A, %d-%b-%y %H:%M:%S} GMT") == date
    assert parse_date(f"{date:%a %b} {date.day:2} {date:%H:%M:%S %Y}") == date


@settings(deadline=None)
@given(st.none() | st.text() | st.from_regex(r"[A-Z][a-z]{2}, \d\d [A-Z][a-z]{2} \d{4} \d\d:\d\d:\d\d GMT"))
def test_anything_else_is_no_date(text: str | None) -> None:
    """Garbage never raises; what is read is a date in UTC."""
    date = parse_date(text)
    assert date is None or date.tzinfo is UTC
    assert parse_retry_after(text, NOW) is None or text is not None


@pytest.mark.parametrize(
    "text", ["Sun, 31 Feb 2026 00:00:00 GMT", "Sun, 06 Nov 1994 24:00:00 GMT", "tomorrow", "", "0"]
)
def test_impossible_dates(text: str) -> None:
    """A day or hour that does not exist is no date."""
    assert parse_date(text) is None


def test_leap_second() -> None:
    """A leap second, which Python does not have, is read as the second before."""
    assert parse_date("Sat, 31 Dec 2016 23:59:60 GMT") == datetime(2016, 12, 31, 23, 59, 59, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "wait"),
    [
        ("60", MINUTE),
        (" 60 ", MINUTE),
        ("0", timedelta(0)),
        ("Wed, 25 Nov 2026 02:01:00 GMT", MINUTE),
        ("Wed, 25 Nov 2026 01:00:00 GMT", timedelta(0)),
        ("-5", None),
        ("1.5", None),
        ("٣", None),
        ("soon", None),
        ("", None),
        (None, None),
    ],
)
def test_retry_after(text: str | None, wait: timedelta | None) -> None:
    """Retry-After is seconds or a date; a past date means now, and nonsense means nothing."""
    assert parse_retry_after(text, NOW) == wait


def test_endless_retry_after() -> None:
    """A number beyond all measure is a long time, not a crash."""
    wait = parse_retry_after("9" * 5000, NOW)
    assert wait is not None
    assert wait > timedelta(days=3650)

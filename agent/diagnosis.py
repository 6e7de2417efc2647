"""What a provider's refusal means: its class, its words made safe to show, and what to do about it.

HTTP status and OAuth ``error`` (RFC 6749 5.2) decide between "later" and "a person must act", because Microsoft
may change AADSTS numbers any day. The numbers choose the hint, and add what is known better: trouble of the
service itself, loop protection, a clock that is off. An unknown number is never a reason to stop.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Literal

from agent import aadsts, words
from agent.errors import RejectedError, TransientError
from agent.harmless import excerpt, mask

if TYPE_CHECKING:
    from collections.abc import Mapping

CREDENTIAL_CODES = frozenset(f"AADSTS{number}" for number in aadsts.RELOAD)
"""After one of these, reading the credential again or falling back to another certificate makes sense."""
SET_CLOCK = "set it right (timedatectl, chronyc tracking)"
LOOP_PAUSE = timedelta(minutes=5)
"""Entra's loop protection (AADSTS50196) lets an app in again after about this long."""
NOTABLE_SKEW = timedelta(minutes=1)
"""From here on the clock explains a refused assertion; below, the network's own delay might. From here on it is
named: NTP keeps it within a tenth of a second, and Keycloak refuses by now (Entra some minutes later)."""
GREAT_SKEW = timedelta(minutes=5)
"""From here on the clock deserves a word whenever a credential is refused: so much is usually tolerated."""

_CREDENTIAL_ERRORS = frozenset({"invalid_client", "invalid_grant"})
_CLIENT_ERRORS = _CREDENTIAL_ERRORS | {
    "unauthorized_client",
    "invalid_scope",
    "invalid_resource",
    "invalid_target",
    "access_denied",
    "interaction_required",
    "consent_required",
}
"""What a token endpoint says of a client, its credential or its scope, and nobody else does."""
_REFUSED_WITH = frozenset({HTTPStatus.OK, HTTPStatus.BAD_REQUEST, HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN})
"""The statuses of such answers; some gateways make 200 of all."""
_OUT_OF_TIME = "not within its valid time range"
_CODE = re.compile(r"AADSTS\s?(\d{4,9})(?!\d)", re.ASCII | re.IGNORECASE)
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,63}")
_IDENTIFIER = re.compile(r"[A-Za-z0-9-]{1,64}")
_MEDIA_TYPE = re.compile(r"\s*([A-Za-z0-9.+-]{1,40}/[A-Za-z0-9.+-]{1,60})\s*(?:;|$)")


def classify(
    status: int,
    parsed: Mapping[str, Any] | None,
    *,
    retry_after: timedelta | None,
    content_type: str | None,
    subject: str,
    skew: timedelta | None,
) -> TransientError | RejectedError:
    """Return the error that an answer without a token stands for.

    Args:
        status: the HTTP status.
        parsed: the JSON object that came with it; None if none came.
        retry_after: what `parse_retry_after` returned.
        content_type: the header of that name.
        subject: what identifies us, such as ``certificate AB12… of app GUID``.
        skew: this machine's clock minus the provider's.
    """
    answer = _Answer(status, parsed or {})
    if status in (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.REQUEST_TIMEOUT):
        return _busy(answer, retry_after, subject)
    if parsed is None or _in_between(status):
        return _page(status, "JSON" if parsed is not None else _media_type(content_type), retry_after)
    clock = _clock(answer, skew)
    if clock or answer.passes:
        return _transient(answer, clock or answer.hint(subject), retry_after)
    hint = answer.hint(subject)
    if skew is not None and abs(skew) > GREAT_SKEW and answer.about_credential:
        hint = f"{_set_right(skew)}; if that is not it: {hint}"
    error = RejectedError(answer.message, hint=hint, code=answer.code, correlation_id=answer.correlation_id)
    error.answered = answer.is_to_client
    return error


class _Answer:
    """An OAuth error response (RFC 6749 5.2), in pieces that are safe to show."""

    def __init__(self, status: int, parsed: Mapping[str, Any]) -> None:
        error, text = _error_and_text(parsed)
        numbers = [*_numbers(parsed.get("error_codes")), *find_codes(text[:2000])]
        number = aadsts.most_telling(numbers)
        self.status = status
        self.error = mask(error) if error else None
        self.code = f"AADSTS{number}" if number else self.error
        self.entry = aadsts.lookup(number) if number else None
        self.by_error = aadsts.lookup_error(self.error)
        self.correlation_id = _identifier(parsed.get("correlation_id"))
        self.out_of_time = number in aadsts.TIME or _OUT_OF_TIME in text
        self.message = f"{self.code or f'HTTP {status} {_phrase(status)}'}: {self._said(text, number)}"

    @property
    def loops(self) -> bool:
        """Whether Entra's protection against loops has struck."""
        return self.entry is not None and self.entry.kind == "L"

    @property
    def passes(self) -> bool:
        """Whether the same request can succeed later, going by status, OAuth error and AADSTS code."""
        kinds = {entry.kind for entry in (self.entry, self.by_error) if entry}
        return self.status >= HTTPStatus.INTERNAL_SERVER_ERROR or not kinds.isdisjoint("TL")

    @property
    def is_to_client(self) -> bool:
        """Whether this is plainly a token endpoint's answer to this client; a throttle is, whatever its words."""
        if self.status == HTTPStatus.TOO_MANY_REQUESTS:
            return True
        return self.status in _REFUSED_WITH and self.error in _CLIENT_ERRORS

    @property
    def about_credential(self) -> bool:
        """Whether certificate, secret or assertion were refused, in which times play a part."""
        return self.code in CREDENTIAL_CODES or self.error in _CREDENTIAL_ERRORS

    def hint(self, subject: str) -> str:
        """Return what to do: by the code, else by the OAuth error, else by the status."""
        elsewhere = self.status in (HTTPStatus.NOT_FOUND, HTTPStatus.METHOD_NOT_ALLOWED)
        entry = self.entry or self.by_error or (aadsts.ELSEWHERE if elsewhere else aadsts.UNKNOWN)
        return entry.fix_for(subject)

    def _said(self, text: str, number: int | None) -> str:
        """Return the provider's first sentences on the matter, else what the code means."""
        if number:
            text = re.split(rf"AADSTS\s?{number}(?!\d)\s?:?", text, maxsplit=1, flags=re.IGNORECASE)[-1]
        known = self.entry or self.by_error
        return excerpt(text) or (known.meaning if known else "the provider gives no reason")


def _error_and_text(parsed: Mapping[str, Any]) -> tuple[str | None, str]:
    """Return OAuth error and description, also from the forms that gateways and other APIs use."""
    error, text = parsed.get("error"), parsed.get("error_description")
    if isinstance(error, dict):
        text, error = error.get("message"), error.get("code")
    if not isinstance(text, str):
        text = parsed["message"] if isinstance(parsed.get("message"), str) else ""
    if not isinstance(error, str):
        return None, text
    return (error, text) if _NAME.fullmatch(error) else (None, text or error)


def _clock(answer: _Answer, skew: timedelta | None) -> str:
    """Return the hint that blames the clock, empty if it is not to blame."""
    if skew is None or not answer.out_of_time or abs(skew) <= NOTABLE_SKEW:
        return ""
    return _set_right(skew)


def _set_right(skew: timedelta) -> str:
    return f"{clock_is_off(skew)}: {SET_CLOCK}"


def clock_is_off(skew: timedelta) -> str:
    """Say how far this machine's clock is off."""
    where = "ahead of" if skew > timedelta(0) else "behind"
    return f"this machine's clock is {words.duration(skew)} {where} the provider's"


def skew_news(said: timedelta | None, skew: timedelta) -> Literal["off", "right"] | None:
    """Return what there is to say of this machine's clock, None if that is known.

    Args:
        said: what was said last; None if it was right.
        skew: as measured now. It is right again only well within what is notable, lest it be said by turns.
    """
    if said is not None and abs(skew) <= NOTABLE_SKEW / 2:
        return "right"
    if said is None:
        return "off" if abs(skew) > NOTABLE_SKEW else None
    return "off" if abs(skew - said) > NOTABLE_SKEW else None


def _transient(answer: _Answer, hint: str, retry_after: timedelta | None) -> TransientError:
    error = TransientError(
        answer.message,
        hint=hint,
        code=answer.code,
        correlation_id=answer.correlation_id,
        retry_after=retry_after or (LOOP_PAUSE if answer.loops else None),
        unreachable=answer.status >= HTTPStatus.INTERNAL_SERVER_ERROR,
    )
    error.answered = answer.is_to_client
    return error


def _busy(answer: _Answer, retry_after: timedelta | None, subject: str) -> TransientError:
    """Return the error for a throttled or too slow request: it concerns this app, not the provider as a whole."""
    if not answer.code:  # Entra's own throttle is plain text; its words add nothing
        answer.message = f"HTTP {answer.status} {_phrase(answer.status)}"
    if answer.status == HTTPStatus.REQUEST_TIMEOUT:
        return _transient(answer, "the request reached the provider too slowly: check the network", retry_after)
    return _transient(answer, (answer.entry or aadsts.THROTTLED).fix_for(subject), retry_after)


def _in_between(status: int) -> bool:
    """Tell whether something in between has answered: token endpoints do not redirect, and are no proxies."""
    redirects = HTTPStatus.MULTIPLE_CHOICES <= status < HTTPStatus.BAD_REQUEST
    return redirects or status == HTTPStatus.PROXY_AUTHENTICATION_REQUIRED


def _page(status: int, content: str, retry_after: timedelta | None) -> TransientError:
    """Return the error for an answer that no token endpoint gives."""
    if status == HTTPStatus.PROXY_AUTHENTICATION_REQUIRED:
        hint = "the proxy asks who we are: give user and password in `proxy`"
    elif status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        hint = f"trouble at the provider, or a proxy answered ({content}) instead of it; it may pass by itself"
    elif content.endswith("json"):
        hint = "the answer says it is JSON and is broken: trouble at the provider, or of a proxy; it may pass by itself"
    else:
        hint = f"a proxy or captive portal answered ({content}) instead of the provider? {aadsts.ELSEWHERE.fix}"
    message = f"HTTP {status} {_phrase(status)} ({content}) instead of a token"
    return TransientError(message, hint=hint, retry_after=retry_after, unreachable=True)


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "(no status of HTTP)"


def find_codes(text: str) -> list[int]:
    """Return the numbers of all AADSTS codes in a text, each once, in order."""
    return list(dict.fromkeys(int(number) for number in _CODE.findall(text)))


def _numbers(value: Any) -> list[int]:
    """Return the ``error_codes`` of Entra's answer."""
    return [n for n in value if type(n) is int and 0 < n < 10**9][:20] if isinstance(value, list) else []


def _identifier(value: Any) -> str | None:
    return value if isinstance(value, str) and _IDENTIFIER.fullmatch(value) else None


def _media_type(content_type: str | None) -> str:
    match = _MEDIA_TYPE.match(content_type or "")
    return match[1].lower() if match else "no content type"


_TIME = r"(?P<h>\d\d):(?P<m>\d\d):(?P<s>\d\d)"
_DATES = tuple(
    re.compile(form, re.ASCII | re.IGNORECASE)
    for form in (
        rf"[a-z]{{3}}, (?P<day>\d\d) (?P<month>[a-z]{{3}}) (?P<year>\d{{4}}) {_TIME} GMT",
        rf"[a-z]{{6,9}}, (?P<day>\d\d)-(?P<month>[a-z]{{3}})-(?P<year>\d\d) {_TIME} GMT",
        rf"[a-z]{{3}} (?P<month>[a-z]{{3}}) (?P<day>[ \d]\d) {_TIME} (?P<year>\d{{4}})",
    )
)
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")


def parse_date(text: str | None) -> datetime | None:
    """Return an HTTP-date in any of its three forms (RFC 9110 5.6.7), None for anything else."""
    match = next(filter(None, (form.fullmatch((text or "").strip()) for form in _DATES)), None)
    if match is None or match["month"].lower() not in _MONTHS:
        return None
    year = int(match["year"])
    if len(match["year"]) == 2:  # noqa: PLR2004 - two digits, as RFC 850 wrote them
        year += 2000 if year < 70 else 1900  # noqa: PLR2004 - as POSIX reads them
    month, day = _MONTHS.index(match["month"].lower()) + 1, int(match["day"])
    try:  # a leap second counts as the one before
        return datetime(year, month, day, int(match["h"]), int(match["m"]), min(int(match["s"]), 59), tzinfo=UTC)
    except ValueError:
        return None


def parse_retry_after(text: str | None, now: datetime) -> timedelta | None:
    """Return how long to wait (RFC 9110 10.2.3: seconds or a date); None if nothing sensible was sent.

    Args:
        text: the header.
        now: the time; the provider's own, where it is known.
    """
    text = (text or "").strip()
    if text.isascii() and text.isdigit():
        return timedelta(seconds=int(text[:9]))
    date = parse_date(text)
    return max(timedelta(0), date - now) if date else None

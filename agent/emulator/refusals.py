"""Every way in which Entra says no: its codes, its words, its shape.

The texts are those of Entra ("Microsoft Entra authentication and authorization error codes", learn.microsoft.com, and
error reports), so that what is tried here is met again there. They name what is public: identifiers and thumbprints.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from agent.emulator.wire import Answer, json_answer

if TYPE_CHECKING:
    from datetime import datetime

ERROR_PAGE = "https://login.microsoftonline.com/error?code={}"
_CREDENTIALS_PAGE = "https://learn.microsoft.com/entra/identity-platform/certificate-credentials"
_FEDERATION_PAGE = "https://learn.microsoft.com/entra/workload-id/workload-identity-federation"


@dataclass(frozen=True, slots=True)
class Meaning:
    """What goes with a code: HTTP status, OAuth 2.0 error (RFC 6749 5.2) and text."""

    status: int
    error: str
    text: str


def _client(text: str) -> Meaning:
    return Meaning(401, "invalid_client", text)


def _request(text: str, error: str = "invalid_request") -> Meaning:
    return Meaning(400, error, text)


CATALOGUE = {
    28002: _request("Provided value for the input parameter scope '{scope}' isn't valid when requesting an access"
                    " token. Please specify a valid scope.", "invalid_scope"),
    50013: _client("Assertion failed validation. [Reason - {reason}]"),
    50027: _client("JWT token is invalid or malformed. [Reason - {reason}]"),
    50048: _client("Subject '{subject}' must match issuer claim '{issuer}' in the client assertion."),
    50196: _request("The server terminated an operation because it encountered a client request loop. Please contact"
                    " your app vendor.", "invalid_grant"),
    70003: _request("The app requested an unsupported grant type '{grant_type}'.", "unsupported_grant_type"),
    70011: _request("The provided request must include a 'scope' input parameter. The provided value for the input"
                    " parameter 'scope' is not valid. The scope {scope} is not valid.", "invalid_scope"),
    70021: _client("No matching federated identity record found for presented assertion. Assertion Issuer: '{issuer}'."
                   " Assertion Subject: '{subject}'. Assertion Audience: '{audience}'. " + _FEDERATION_PAGE),
    70025: _client("The client '{client_id}' has no configured federated identity credentials."),
    90002: _request("Tenant '{tenant}' not found. Check to make sure you have the correct tenant ID and are signing"
                    " into the correct cloud. Check with your subscription administrator, this may happen if there are"
                    " no active subscriptions for the tenant."),
    90033: Meaning(503, "temporarily_unavailable", "A transient error has occurred. Please try again."),
    90055: Meaning(429, "temporarily_unavailable", "Tenant throttled due to too many requests."),
    500011: _request("The resource principal named {resource} was not found in the tenant named {tenant}. This can"
                     " happen if the application has not been installed by the administrator of the tenant or consented"
                     " to by any user in the tenant. You might have sent your authentication request to the wrong"
                     " tenant.", "invalid_resource"),
    700016: _request("Application with identifier '{client_id}' was not found in the directory '{tenant}'. This can"
                     " happen if the application has not been installed by the administrator of the tenant or consented"
                     " to by any user in the tenant. You may have sent your authentication request to the wrong"
                     " tenant.", "unauthorized_client"),
    700021: _client("Client assertion application identifier doesn't match 'client_id' parameter. Review the"
                    f" documentation at {_CREDENTIALS_PAGE} ."),
    700022: _request("The provided value for the input parameter scope '{scope}' isn't valid because it contains more"
                     " than one resource.", "invalid_scope"),
    700023: _client("Client assertion audience claim does not match Realm issuer. Review the documentation at"
                    f" {_CREDENTIALS_PAGE} ."),
    700024: _client("Client assertion is not within its valid time range. Current time: {now}, assertion valid from"
                    " {valid_from}, expiry time of assertion {valid_until}. Review the documentation at"
                    f" {_CREDENTIALS_PAGE} ."),
    700027: _client("The certificate with identifier used to sign the client assertion is not registered on"
                    " application. [Reason - {reason}, Thumbprint of key used by client: '{thumbprint}', Please visit"
                    " the Azure Portal, Graph Explorer or directly use MS Graph to see configured keys for app Id"
                    " '{client_id}'.]"),
    700211: _client("No matching federated identity record found for presented assertion issuer '{issuer}'. Check your"
                    " federated identity credential Subject, Audience and Issuer against the presented assertion. "
                    + _FEDERATION_PAGE),
    700212: _client("No matching federated identity record found for presented assertion audience '{audience}'. Check"
                    " your federated identity credential Subject, Audience and Issuer against the presented assertion. "
                    + _FEDERATION_PAGE),
    700213: _client("No matching federated identity record found for presented assertion subject '{subject}'. Check"
                    " your federated identity credential Subject, Audience and Issuer against the presented assertion. "
                    + _FEDERATION_PAGE),
    900023: _request("Specified tenant identifier '{tenant}' is neither a valid DNS name, nor a valid external"
                     " domain."),
    900144: _request("The request body must contain the following parameter: '{parameter}'."),
    900561: Meaning(405, "invalid_request", "The endpoint only accepts POST requests. Received a {method} request."),
    1000502: _client("The provided certificate is not within its specified validity period. [Thumbprint of key used by"
                     " client: '{thumbprint}', Found key 'Start={valid_from}, End={valid_until}']"),
    1002012: _request("The provided value for scope {scope} is not valid. Client credential flows must have a scope"
                      " value with /.default suffixed to the resource identifier (application ID URI).",
                      "invalid_scope"),
    7000215: _client("Invalid client secret provided. Ensure the secret being sent in the request is the client secret"
                     " value, not the client secret ID, for a secret added to app '{client_id}'."),
    7000218: _client("The request body must contain the following parameter: 'client_assertion' or 'client_secret'."),
    7000222: _client("The provided client secret keys for app '{client_id}' are expired. Visit the Azure portal to"
                     " create new keys for your app: https://aka.ms/NewClientSecret, or consider using certificate"
                     " credentials for added security: https://aka.ms/certCreds."),
    9001023: _request("The grant type is not supported over the /common or /consumers endpoints. Please use a"
                      " tenant-specific endpoint."),
}  # fmt: skip
"""Codes and what goes with them; names in braces are filled in by what the request said."""
UNKNOWN = _request("An emulated failure.")


class _Details(dict[str, Any]):
    """What the texts may name; what is not known is left out."""

    def __missing__(self, key: str) -> str:
        return ""


class Refusal(Exception):  # noqa: N818 - what Entra does, not an error of ours
    """The request is refused, with a code and what its text names."""

    def __init__(self, code: int, **details: Any) -> None:
        super().__init__(f"AADSTS{code}")
        self.code = code
        self.details = details


@dataclass(frozen=True, slots=True)
class Trace:
    """What finds a request in the sign-in logs."""

    trace_id: str
    correlation_id: str


def refuse(
    code: int,
    details: dict[str, Any],
    trace: Trace,
    now: datetime,
    *,
    status: int | None = None,
    error: str | None = None,
) -> Answer:
    """Return Entra's answer for a code, with another status or OAuth 2.0 error where given."""
    meaning = CATALOGUE.get(code, UNKNOWN)
    stamp = f"{now:%Y-%m-%d %H:%M:%SZ}"
    text = (
        f"AADSTS{code}: {meaning.text.format_map(_Details(details))}"
        f" Trace ID: {trace.trace_id} Correlation ID: {trace.correlation_id} Timestamp: {stamp}"
    )
    body = {
        "error": error or meaning.error,
        "error_description": text,
        "error_codes": [code],
        "timestamp": stamp,
        "trace_id": trace.trace_id,
        "correlation_id": trace.correlation_id,
        "error_uri": ERROR_PAGE.format(code),
    }
    return json_answer(status or meaning.status, body)

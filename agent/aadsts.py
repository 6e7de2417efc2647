"""The AADSTS codes that an app without a user may meet, as data: meaning, class and fix of each.

Sources: learn.microsoft.com, "Microsoft Entra authentication and authorization error codes", and public issues of
Microsoft's own libraries. Codes of user sign-in are listed only to say that they are that.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Literal, cast

if TYPE_CHECKING:
    from collections.abc import Sequence

Kind = Literal["T", "L", "P", "K", "C", "U"]
KINDS: dict[Kind, str] = {
    "T": "transient: trouble at the provider; it passes, and the agent keeps trying",
    "L": "transient: too many requests; it passes when they get fewer",
    "P": "permanent, unless something was changed minutes ago: changes take a while to be known everywhere",
    "K": "permanent until a person mends the credential; what was registered just now takes minutes to be known",
    "C": "permanent: a person must change something, here or in the portal",
    "U": "not for apps: it belongs to the sign-in of a user, which a token agent does not do",
}
WRAPPERS = frozenset({70002})
"""Codes that only introduce another one."""
TIME = frozenset({700024, 500133})
"""Codes that a wrong clock explains."""
RELOAD = frozenset(
    {700027, 700024, 7000214, 1000502, 7000274, 7000277, 700030, 50012, 50032, 900384, 7000215, 7000222, 70002}
)
"""Codes after which another certificate, or the same file read again, may do better: all of class K."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One code or OAuth error; ``fix`` may name {subject} and {app}."""

    name: str
    kind: Kind
    meaning: str
    fix: str

    def fix_for(self, subject: str) -> str:
        """Return the fix for a subject such as ``certificate AB12… of app GUID``."""
        app = subject.rpartition(" of ")[2]
        portal = "Entra admin center > {} registrations > {}"
        return (
            self.fix.replace("{registration}", portal.format("App", app))
            .replace("{enterprise}", f"Entra admin center > Enterprise applications > {app}")
            .replace("{subject}", subject)
            .replace("{app}", app)
        )


UNKNOWN = Entry("", "C", "", "the provider refuses the request of {app}: compare the profile with the app registration")
ELSEWHERE = Entry("", "C", "", "check `authority` or `oidc_issuer`")
THROTTLED = Entry("", "L", "", "the provider throttles {app}: does a second agent, or a loop, ask for the same app?")

# One entry: its codes, class and meaning; below, indented, the fix ("= CODE": the same as that one's).
_CODES = """
700027 K the app registration does not know this certificate, or the signature is not by its key
  upload the .cer of {subject} to the app registration: {registration} > Certificates & secrets
700024 K the assertion is outside its time range
  check this machine's clock (timedatectl); of a federated assertion: the file that holds it is stale
7000214 K the certificate was revoked
  make a new certificate in place of {subject} and register it: {registration} > Certificates & secrets
1000502 K the certificate is outside its validity: expired, or not valid yet
  renew {subject} and upload the new .cer: {registration} > Certificates & secrets
7000274 K the certificate is not valid, or the signature of the assertion is not
  = 1000502
7000277 K the certificate was revoked by its authority
  = 7000214
700030 K the subject name of the certificate is not authorised for the app
  compare the subject of {subject} with the app's trusted subject names and issuers
50012 K authentication failed: subject, chain, thumbprint, signature or time of the assertion
  = 700027
50032 K the RSA key is too weak: below 2048 bits
  make a new pair in place of {subject} (`token-agent cert new`) and register it
900384 K the signature of the assertion cannot be verified
  = 700027
7000215 K the client secret is wrong
  put the *value* of the secret into client_secret_file, not its id: {registration} > Certificates & secrets
7000222 K the client secret has expired
  make a new secret, or better a certificate (`token-agent cert new`): {registration} > Certificates & secrets
70002 K the credential is refused; older form, usually followed by a more exact code
  check certificate or secret: {registration} > Certificates & secrets
50003 C the tenant has no signing key for the resource
  the owner of the resource must configure its signing key
50013 C the assertion is not valid: malformed, expired, of another issuer, or its signature is
  check issuer, audience and times of the assertion, and this machine's clock
500133 C the assertion is not within its time range
  = 700024
50027 C the assertion is no valid JWT: issuer, audience, time or format
  = 50013
50048 C `sub` and `iss` of the assertion differ
  both must be the client id; with a certificate the agent takes care of it: report this with the correlation id
700025 C the app is registered as a public client, which has no credentials
  check client_id; or {registration} > Authentication > Allow public client flows: No
7000218 C the request holds neither client_assertion nor client_secret
  an empty credential was sent: check the credential of the profile
700016 P the app is not known in this tenant
  check client_id and tenant (`token-agent check`); in another tenant the app must be installed by admin consent
700011 P the app is not known in this directory
  = 700016
70001 C the app is disabled, or not known in this tenant
  enable it: {enterprise} > Properties > Enabled for users to sign in: Yes; else as for AADSTS700016
7000112 C the app is disabled
  enable it: {enterprise} > Properties > Enabled for users to sign in: Yes
7000229 P the app has no service principal in this tenant
  grant admin consent in this tenant, or `az ad sp create --id CLIENT_ID`
1000031 C the app cannot be accessed at this time
  ask an administrator of the tenant
90002 C the tenant is not known in this cloud
  check `tenant` (its id or a verified domain), and `cloud` when it is a national one
900021 900023 50029 C the tenant is neither a GUID nor a valid domain
  = 90002
50059 50128 90019 C the request does not say which tenant
  give `tenant` as its id or a verified domain
50194 C the app belongs to one tenant, but /common was asked
  = 50059
9001023 90124 90130 C this works with a tenant of its own only, not with /common or /consumers
  = 50059
90038 C the tenant is in another national cloud
  set `cloud` to the one of the tenant: usgov or china
900382 900432 C an app cannot get tokens across clouds
  = 90038
900439 C an app of the US government cloud asked the public one
  set cloud = "usgov"
50049 C the authority is not a host of the identity platform
  check `authority`; with `tenant` and `cloud` none is needed
51005 C the request was redirected: another endpoint, or a proxy in between
  check `authority` and `proxy`
51000 90043 C the feature is disabled
  ask an administrator of the tenant
70011 C the scope is not valid
  ask for the whole resource, scopes = ["https://graph.microsoft.com/.default"]; permissions are granted in the portal
1002012 C an app must ask for RESOURCE/.default, not for a single permission
  = 70011
28002 28003 700023 C the scope is not valid for an access token
  = 70011
700022 C the scopes belong to more than one resource
  one profile per resource: a token is for one audience
500011 P the resource of the scope is not known in this tenant
  check what stands before /.default (a typo?); else the resource must be installed in this tenant
50001 P the resource of the scope is disabled or does not exist
  = 500011
650057 C the resource is not among the app's required permissions
  {registration} > API permissions: add one of the resource, then grant admin consent
650052 650054 C the tenant has not subscribed to the service, or it is gone
  ask an administrator of the tenant to enable the service behind the scope
650056 65005 C the app is misconfigured: permissions are missing, or not consented to
  {registration} > API permissions: add what is missing, then grant admin consent
65002 C an app of Microsoft's own is used for an API without Microsoft's approval
  register an app of your own and use its client id
90093 90094 90095 90008 90099 C an administrator has not consented to the app
  {registration} > API permissions > Grant admin consent
501051 C the app has no role on a resource that demands one
  assign one of the resource's app roles to {app}, then grant admin consent
50105 C the caller is not assigned to the resource, which demands it
  = 501051
90009 C an app that asks for a token for itself must name itself by its id
  scopes = ["CLIENT_ID/.default"] with the GUID, not the api:// name
501461 C the audience of the token does not fit a resource with mapped claims
  the owner of the resource must use its GUID, or a verified domain, as identifier
50146 C the resource needs a signing key of its own, which is missing or expired
  the owner of the resource must configure its signing key
100007 C the regional endpoint serves Microsoft's own apps only
  remove the region from `authority`
53003 C Conditional Access blocks the app: address or risk
  allow this machine's outgoing address; see Sign-in logs > Service principal sign-ins
530032 C a security policy of the tenant blocks the request
  ask an administrator of the tenant; see Sign-in logs > Service principal sign-ins
500021 500022 50002 C tenant restrictions of a proxy on the way do not allow this tenant
  allow the tenant on the proxy that adds the header Restrict-Access-To-Tenants
500212 500213 C the cross-tenant access policy does not allow it
  ask the administrators of both tenants
70021 P no federated credential of the app matches the assertion
  compare issuer, subject and audience: {registration} > Certificates & secrets > Federated credentials
700211 P no federated credential matches the issuer of the assertion
  the issuer must be the same to the letter, also the slash at its end: {registration} > Certificates & secrets
700213 7002137 7002138 P no federated credential matches the subject of the assertion
  the subject must be the same to the letter, upper and lower case too: {registration} > Certificates & secrets
700212 7002121 C no federated credential matches the audience of the assertion
  the audience is api://AzureADTokenExchange in the public cloud, in the assertion and in the registration
700222 700226 700227 C a token of Entra ID itself is not allowed as federated assertion here
  use the token of a managed identity, or of another identity provider
700229 C only a token of an app may be a federated assertion, not one of a user
  = 700222
50196 L Entra's protection against loops: the same request came too often
  does a second agent, or a loop, ask for the same app? the agent pauses for five minutes
90055 L the tenant is throttled: too many requests
  wait; find out what else asks for tokens in this tenant
50033 50087 90006 90012 90024 T a passing failure of the service
  nothing to fix here; if it lasts: https://azure.status.microsoft
90033 90090 90091 T the directory behind the service cannot be reached
  = 50033
50000 90036 90092 T the service failed to issue the token
  nothing to fix here; if it lasts, open a support ticket with the correlation id
90013 90014 900144 90004 90015 90023 90100 90102 90117 90121 9002313 C the request is malformed, or a field is missing
  check `authority` and `scopes`; otherwise report this with the correlation id
90056 900561 C the endpoint takes POST only, or is not the token endpoint
  a proxy may have rewritten the request: check `proxy` and `authority`
901002 C the parameter `resource` is not supported here
  use `scopes`
70003 C the tenant or app does not support this grant
  check `authority`; an app gets its token by the grant client_credentials
7000114 67003 C the app may not act on behalf of others
  this is another flow than the agent's: something else uses the app
50034 50020 51004 90072 50055 50056 50057 50058 50064 50053 50126 U a user's account or password
  look for the program that signs in a user; a token agent uses certificates only
50072 50074 50076 50078 50079 53000 53001 53002 53004 130507 530035 U multifactor or device rules for users
  = 50034
65001 65004 50011 70000 70008 70016 70019 70043 700082 700084 54005 50173 U a user's consent, code or refresh token
  = 50034
"""

_ERRORS = """
invalid_client K the credential is refused
  is {subject} the one that the provider knows? has it been registered, and has it not expired?
invalid_grant C the assertion or grant is refused
  check {subject} and what the provider allows {app}
unauthorized_client C the app is not known here, is disabled, or may not use this grant
  check client_id and tenant; at other providers: allow {app} the grant client_credentials
unsupported_grant_type C the endpoint does not know this grant
  check `authority` or `oidc_issuer`: is it the token endpoint?
unsupported_response_type C the endpoint does not know this kind of request
  = unsupported_grant_type
invalid_scope C the scope is not valid
  check `scopes`; Entra ID wants RESOURCE/.default, such as https://graph.microsoft.com/.default
invalid_resource P the resource of the scope is not known in this tenant
  check what stands before /.default (a typo?); else the resource must be installed in this tenant
invalid_target C the resource is not valid
  check `scopes`
invalid_request C the request is malformed, or a field is missing
  check `authority` and `scopes`; otherwise report this with the correlation id
invalid_tenant C the tenant is not known in this cloud
  check `tenant` (its id or a verified domain), and `cloud` when it is a national one
invalid_instance C the authority is not a host of the identity platform
  check `authority`; with `tenant` and `cloud` none is needed
access_denied C a policy of the provider refuses
  ask an administrator of the provider
interaction_required U the provider asks for a user
  look for a policy that demands a user's sign-in of {app}
consent_required C an administrator has not consented to the app
  {registration} > API permissions > Grant admin consent
temporarily_unavailable T the provider is too busy, or under repair
  nothing to fix here
server_error T the provider failed
  nothing to fix here; if it lasts, tell its operator
slow_down L too many requests
  does a second agent, or a loop, ask for the same app?
"""


@cache
def entries() -> dict[str, Entry]:
    """Return all entries by code (digits only) or OAuth error, in the order of the catalogue."""
    result: dict[str, Entry] = {}
    for catalogue in (_CODES, _ERRORS):
        lines = catalogue.strip().splitlines()
        for head, fix in zip(lines[::2], lines[1::2], strict=True):
            *names, rest = _split(head)
            kind, _, meaning = rest.partition(" ")
            reference = fix.strip().removeprefix("= ")
            text = result[reference].fix if fix.strip().startswith("= ") else fix.strip()
            result |= {name: Entry(name, cast("Kind", kind), meaning, text) for name in names}
    return result


def _split(head: str) -> list[str]:
    """Return the names before the class, then class and meaning."""
    words = head.split()
    count = next(index for index, word in enumerate(words) if word in KINDS)
    return [*words[:count], " ".join(words[count:])]


def lookup(number: int) -> Entry | None:
    """Return what is known of an AADSTS code."""
    return entries().get(str(number))


def most_telling(numbers: Sequence[int]) -> int | None:
    """Return the code that says most of those in one answer: a known one that introduces no other, else the first."""
    known = (number for number in numbers if str(number) in entries() and number not in WRAPPERS)
    return next(known, numbers[0] if numbers else None)


def lookup_error(error: str | None) -> Entry | None:
    """Return what is known of an OAuth error (RFC 6749 5.2 and Entra's own)."""
    return entries().get(error) if error and not error.isdigit() else None

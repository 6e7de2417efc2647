"""Whom the transport trusts: the CA file or the system, whatever the environment says."""

from __future__ import annotations

import contextlib
import ssl
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from agent.errors import TransientError
from agent.network import trust
from agent.network.transport import Call, HttpsTransport
from tests.certificate_helpers import openssl
from tests.network_helpers import DAY, Authority, Server, answering

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"))


def outcome(pool: HttpsTransport, tls: ssl.SSLContext, host: str = "127.0.0.1") -> str:
    """Return ``trusted``, or message and hint of the refusal; an untrusted server never gets to see the request."""
    with Server(answering(), tls) as server, contextlib.closing(pool):
        try:
            pool.request(Call(20), "GET", server.url.replace("127.0.0.1", host), {})
        except TransientError as error:
            shown = f"{error.message}; {error.hint}"
        else:
            shown = "trusted"
    assert bool(server.requests) == (shown == "trusted")
    return shown


def test_the_ca_file_is_trusted(authority: Authority) -> None:
    """A server whose certificate comes from the CA file's authority is trusted."""
    assert outcome(HttpsTransport(authority.ca_file), authority.server()) == "trusted"


def test_the_ca_file_replaces_the_system(authority: Authority) -> None:
    """With a CA file nothing else is trusted, the system's authorities included."""
    context = trust.context(authority.ca_file)
    assert context.cert_store_stats()["x509"] == 1
    assert [each["subject"] for each in context.get_ca_certs()] == [((("commonName", authority.name),),)]


def test_strangers_are_refused(authority: Authority, tmp_path: Path) -> None:
    """Neither the system's trust nor another authority's covers the server; the hint names `ca_file`."""
    for pool in (HttpsTransport(), HttpsTransport(Authority(tmp_path, "Another CA").ca_file)):
        refusal = outcome(pool, authority.server())
        assert "does not show a trusted certificate: unable to get local issuer certificate" in refusal
        assert "`ca_file`" in refusal


def test_a_wrong_time_is_refused(authority: Authority) -> None:
    """Expired and not yet valid certificates are refused, with a word about this machine's clock."""
    expired = outcome(HttpsTransport(authority.ca_file), authority.server(end=-timedelta(minutes=1)))
    assert "certificate has expired" in expired
    assert "this machine's clock" in expired
    early = outcome(HttpsTransport(authority.ca_file), authority.server(begin=timedelta(minutes=1), end=DAY))
    assert "certificate is not yet valid" in early
    assert "this machine's clock" in early


def test_a_wrong_name_is_refused(authority: Authority) -> None:
    """A certificate for another name or address is refused, and the hint doubts the address, not the CA."""
    for names, host in ((("other.test",), "localhost"), (("localhost",), "127.0.0.1"), (("127.0.0.1",), "localhost")):
        refusal = outcome(HttpsTransport(authority.ca_file), authority.server(names), host)
        assert "ismatch, certificate is not valid for" in refusal
        assert "`authority`" in refusal


def test_an_intermediate_is_enough(tmp_path: Path) -> None:
    """Whom the CA file names is trusted, also one that another authority has signed (as curl does)."""
    intermediate = Authority(tmp_path, "Intermediate CA", parent=Authority(tmp_path, "Root CA"))
    assert outcome(HttpsTransport(intermediate.ca_file), intermediate.server()) == "trusted"


def test_a_chain_is_followed(tmp_path: Path) -> None:
    """A server that sends its intermediate is trusted by its root."""
    root = Authority(tmp_path, "Root CA")
    intermediate = Authority(tmp_path, "Intermediate CA", parent=root)
    assert outcome(HttpsTransport(root.ca_file), intermediate.server(chain=intermediate.pem)) == "trusted"


def test_inspecting_proxies_are_usable(tmp_path: Path) -> None:
    """An authority without key identifiers and critical marks will do, on every Python (azure-cli#33716)."""
    lax = Authority(tmp_path, "Inspecting CA", lax=True)
    assert outcome(HttpsTransport(lax.ca_file), lax.server()) == "trusted"
    for ca_file in (None, lax.ca_file):
        assert not trust.context(ca_file).verify_flags & ssl.VERIFY_X509_STRICT


def test_old_tls_is_refused(authority: Authority) -> None:
    """Below TLS 1.2 there is no connection."""
    old = authority.server()
    old.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.warns(DeprecationWarning, match="TLSv1"):
        old.minimum_version, old.maximum_version = ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1
    assert "no TLS connection" in outcome(HttpsTransport(authority.ca_file), old)


def test_the_environment_decides_nothing(authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No variable adds trust, a proxy, a password or a log of keys, and none takes trust away."""
    stranger = Authority(tmp_path, "Another CA")
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login somebody password something\n")
    (tmp_path / ".netrc").chmod(0o600)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("SSLKEYLOGFILE", str(tmp_path / "keys.log"))
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    for name in ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        monkeypatch.setenv(name, str(authority.ca_file))
    monkeypatch.setenv("SSL_CERT_DIR", str(hashed(tmp_path / "hashed", authority)))
    assert "unable to get local issuer" in outcome(HttpsTransport(), authority.server())
    assert "unable to get local issuer" in outcome(HttpsTransport(stranger.ca_file), authority.server())
    for name in ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        monkeypatch.setenv(name, str(stranger.ca_file))
    with (
        Server(answering(), authority.server()) as server,
        contextlib.closing(HttpsTransport(authority.ca_file)) as pool,
    ):
        assert pool.request(Call(20), "GET", server.url, {}).status == 200
    assert "authorization" not in server.requests[0].headers
    assert not (tmp_path / "keys.log").exists()


def hashed(folder: Path, authority: Authority) -> Path:
    """Return a trust store as distributions make it: certificates named by the hash of their subject."""
    folder.mkdir()
    name = openssl("x509", "-in", authority.ca_file, "-noout", "-hash", cwd=folder).strip()
    (folder / f"{name}.0").write_bytes(authority.pem)
    return folder


def test_the_system_store_is_read_as_needed(authority: Authority, tmp_path: Path) -> None:
    """A hashed directory is preferred, nothing of it is read in advance, and what is in it is trusted."""
    pool = HttpsTransport(authority.ca_file)
    pool._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    trust.trust_first(pool._tls, str(hashed(tmp_path / "hashed", authority)), [str(tmp_path / "missing.pem")])
    assert pool._tls.cert_store_stats()["x509"] == 0
    assert outcome(pool, authority.server()) == "trusted"


def test_without_a_hashed_directory_the_bundle_is_used(authority: Authority, tmp_path: Path) -> None:
    """The first bundle that exists is the trust store; without any there is a clear error."""
    pool = HttpsTransport(authority.ca_file)
    pool._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    (tmp_path / "README").write_text("not hashed")
    trust.trust_first(pool._tls, str(tmp_path), [str(tmp_path / "missing.pem"), str(authority.ca_file)])
    assert outcome(pool, authority.server()) == "trusted"
    with pytest.raises(FileNotFoundError, match="no trust store"):
        trust.trust_first(pool._tls, str(tmp_path / "missing"), [str(tmp_path / "missing.pem")])


def test_this_system_is_trusted() -> None:
    """The default is a trust store of this system: a hashed directory, or a bundle with certificates in it."""
    hashed_directory = trust._is_hashed(ssl.get_default_verify_paths().openssl_capath)
    assert hashed_directory or trust.context(None).cert_store_stats()["x509_ca"] > 0

"""`cert show` says of any certificate file what the portal shows of it, and what is wrong with it."""

from __future__ import annotations

import base64
import hashlib
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from agent import cli
from tests.certificate_helpers import DAY, Pair, make_certificate, make_chain, openssl, pool_key, written

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

HOUR = timedelta(hours=1)


def fresh(cn: str = "app", **further: Any) -> Pair:
    """Return a certificate that is valid around the real now."""
    now = datetime.now(UTC)
    return make_certificate(cn, **{"not_before": now - DAY, "not_after": now + 23 * DAY + HOUR} | further)


class Show:
    """The command, and the lines it printed by their labels."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    def __call__(self, path: Path, *arguments: str, code: int = 0) -> dict[str, str]:
        assert cli.run(["cert", "show", str(path), *arguments]) == code
        self.out, self.err = self._capsys.readouterr()
        lines = [line.split("  ", 1) for line in self.out.splitlines() if "  " in line]
        return {label: value.strip() for label, value in lines}


@pytest.fixture
def show(capsys: pytest.CaptureFixture[str]) -> Show:
    return Show(capsys)


FORMS: dict[str, Callable[[Pair], bytes]] = {
    "PEM": lambda pair: pair.pem,
    "PEM without key": lambda pair: pair.cert_pem,
    "DER": lambda pair: pair.der,
    "PFX": lambda pair: pair.pfx(),
}


@pytest.mark.parametrize("form", FORMS)
def test_facts_are_openssls(form: str, tmp_path: Path, show: Show) -> None:
    """Subject, serial, dates and thumbprints are those that OpenSSL finds, whatever the form of the file."""
    pair = fresh("my app")
    shown = show(written(tmp_path / "file", FORMS[form](pair)))
    written(tmp_path / "app.crt", pair.cert_pem)
    ask = ("x509", "-in", "app.crt", "-noout")
    assert shown["Subject"] == openssl(*ask, "-subject", "-nameopt", "RFC2253", cwd=tmp_path).strip()[8:]
    assert shown["Serial"].upper() == openssl(*ask, "-serial", cwd=tmp_path).strip()[7:].lstrip("0")
    sha1, sha256 = (
        openssl(*ask, "-fingerprint", algorithm, cwd=tmp_path).strip().split("=")[1].replace(":", "")
        for algorithm in ("-sha1", "-sha256")
    )
    assert shown["Thumbprint"].startswith(f"{sha1} ")
    assert "portal" in shown["Thumbprint"]
    assert shown["SHA-256"] == sha256.lower()
    digest = hashlib.sha256(pair.der).digest()
    assert shown["x5t#S256"] == base64.urlsafe_b64encode(digest).decode().rstrip("=")
    assert shown["Issuer"] == "itself (self-signed)"
    assert shown["Key"] == "RSA 2048 bits"
    assert shown["Private key"] == ("in this file" if form in ("PEM", "PFX") else "not in this file")


def test_readable_on_a_terminal(tmp_path: Path, show: Show) -> None:
    """Plain text within 80 columns, values below each other, nothing on standard error, no key."""
    show(written(tmp_path / "app.pem", fresh().pem))
    lines = show.out.splitlines()
    assert max(map(len, lines)) <= 80
    assert len({len(line) - len(line.split("  ", 1)[1].lstrip()) for line in lines}) == 1
    assert show.err == ""
    assert "PRIVATE KEY" not in show.out


@pytest.mark.parametrize(
    ("begins", "ends", "words"),
    [
        (-DAY, 23 * DAY + HOUR, "(expires in 23 days)"),
        (-9 * DAY, -3 * DAY - HOUR, "(EXPIRED 3 days ago)"),
        (5 * DAY + HOUR, 9 * DAY, "(NOT YET VALID: in 5 days)"),
    ],
)
def test_validity_in_words(begins: timedelta, ends: timedelta, words: str, tmp_path: Path, show: Show) -> None:
    """Whether it is valid is said in words; an expired certificate can be looked at all the same."""
    now = datetime.now(UTC)
    show(written(tmp_path / "app.pem", fresh(not_before=now + begins, not_after=now + ends).pem))
    assert words in show.out


def test_chain_in_any_order(tmp_path: Path, show: Show) -> None:
    """The certificate that has the key is described, the others are listed."""
    chain = make_chain()
    content = b"".join(each.cert_pem for each in (chain.root, chain.lower, chain.leaf, chain.upper))
    shown = show(written(tmp_path / "app.pem", content + chain.leaf.key_pem))
    assert (shown["Subject"], shown["Issuer"]) == ("CN=app", "CN=Test Issuing CA")
    assert "Also in the file (3):" in show.out
    for subject in ("CN=Test Root", "CN=Test Issuing CA", "CN=Test Policy CA"):
        assert f"  {subject} (" in show.out


def test_foreign_key(tmp_path: Path, show: Show) -> None:
    """A key that is not the certificate's is said to be that."""
    content = fresh().cert_pem + fresh(key=pool_key(1)).key_pem
    assert "does NOT belong" in show(written(tmp_path / "app.pem", content))["Private key"]


def test_encrypted_key(tmp_path: Path, show: Show) -> None:
    """The certificate is shown also where the key does not open; with the password the key is compared."""
    pair = fresh()
    path = written(tmp_path / "app.pem", pair.cert_pem + pair.encrypted_key_pem(b"pw"))
    assert show(path)["Private key"] == "in this file, but: the private key is encrypted, and no password is given"
    password = written(tmp_path / "password", b"pw\n")
    assert show(path, "--password-file", str(password))["Private key"] == "in this file"


def test_key_entra_does_not_take(tmp_path: Path, show: Show) -> None:
    """A certificate with another kind of key is shown, with a word about it."""
    key = ec.generate_private_key(ec.SECP256R1())
    shown = show(written(tmp_path / "app.pem", fresh(key=key).pem))
    assert shown["Key"] == "EC secp256r1 (Entra ID wants RSA)"
    assert shown["Private key"] == "in this file"


def test_control_characters_are_escaped(tmp_path: Path, show: Show) -> None:
    """A certificate cannot write to the terminal what it likes."""
    show(written(tmp_path / "app.cer", fresh("a\x1b[2Jb\nSubject  CN=other").der))
    assert "\\x1b" in show.out
    assert "\x1b" not in show.out
    assert show.out.count("\nSubject") == 0


def test_protected_pfx(tmp_path: Path, show: Show) -> None:
    """A protected PFX asks for --password-file (78), refuses a wrong one (78), and opens with the right one."""
    path = written(tmp_path / "app.pfx", fresh().pfx(b"pw"))
    show(path, code=78)
    assert "needs a password" in show.err
    assert "--password-file" in show.err
    show(path, "--password-file", str(written(tmp_path / "wrong", b"x")), code=78)
    assert "not opened by the password" in show.err
    assert show(path, "--password-file", str(written(tmp_path / "right", b"pw")))["Subject"] == "CN=app"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (lambda: b"", "is empty"),
        (lambda: b"garbage", "is neither PEM nor PKCS#12 nor DER"),
        (lambda: make_certificate().key_pem, "holds no certificate"),
        (None, "does not exist"),
    ],
    ids=["empty", "garbage", "key only", "missing"],
)
def test_unreadable(content: Callable[[], bytes] | None, words: str, tmp_path: Path, show: Show) -> None:
    """What is no certificate gets one clear error (78) and no other output."""
    path = tmp_path / "file"
    if content is not None:
        written(path, content())
    show(path, code=78)
    assert show.out == ""
    assert show.err.startswith(f"token-agent: {path}: {words}")
    assert "Traceback" not in show.err

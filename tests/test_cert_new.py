"""`cert new` makes a pair that works everywhere, tells what to do with it, and never touches what is there."""

from __future__ import annotations

import os
import re
import shlex
import stat
import subprocess
import tomllib
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import ExtendedKeyUsageOID

from agent import cli
from agent.credentials import store as credentials
from agent.credentials.making import file_name, new_certificate, parse_subject
from agent.errors import CredentialError
from tests.certificate_helpers import NOW, certificate_profile, load_certificate, openssl, written

if TYPE_CHECKING:
    from pathlib import Path


def new(out: Path, *arguments: str, subject: str = "CN=app") -> int:
    return cli.run(["cert", "new", "--out", str(out), "--subject", subject, *arguments])


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


@pytest.mark.parametrize("umask", [0, 0o077])
def test_files_and_modes(umask: int, tmp_path: Path) -> None:
    """Whatever the umask: the folder is 0700, private files are 0600, the public one is 0644."""
    before = os.umask(umask)
    try:
        assert new(tmp_path / "out") == 0
    finally:
        os.umask(before)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "out").iterdir()}
    assert modes == {"app.pem": 0o600, "app.pfx": 0o600, "app.cer": 0o644}
    assert stat.S_IMODE((tmp_path / "out").stat().st_mode) == 0o700


def test_pair_works_at_once(tmp_path: Path) -> None:
    """PEM and PFX are loaded by the agent as they are, and are the same as the public file."""
    assert new(tmp_path) == 0
    now = datetime.now(UTC)
    loaded = [load_certificate(tmp_path / f"app.{suffix}", now) for suffix in ("pem", "pfx")]
    assert {each.thumbprint for each in loaded} == {_fingerprint(tmp_path, "-sha1").upper()}
    assert {each.thumbprint_sha256 for each in loaded} == {_fingerprint(tmp_path, "-sha256").lower()}


def _fingerprint(directory: Path, algorithm: str) -> str:
    """Return the fingerprint of app.cer as OpenSSL computes it."""
    line = openssl("x509", "-inform", "DER", "-in", "app.cer", "-noout", "-fingerprint", algorithm, cwd=directory)
    return line.strip().split("=")[1].replace(":", "")


def test_certificate_is_for_signing_as_a_client(tmp_path: Path) -> None:
    """SHA-256, digitalSignature and clientAuth only, no authority, valid from 5 min ago for the days asked for."""
    made = new_certificate(tmp_path, "CN=app,O=Contoso", days=30, now=NOW + timedelta(milliseconds=500))
    certificate = x509.load_der_x509_certificate(made.cer.read_bytes())
    assert certificate.subject.rfc4514_string() == certificate.issuer.rfc4514_string() == "CN=app,O=Contoso"
    assert certificate.not_valid_before_utc == NOW - timedelta(minutes=5)
    assert certificate.not_valid_after_utc == NOW + timedelta(days=30)
    assert certificate.signature_hash_algorithm is not None
    assert certificate.signature_hash_algorithm.name == "sha256"
    assert certificate.serial_number.bit_length() > 64
    usage = certificate.extensions.get_extension_for_class(x509.KeyUsage)
    assert usage.critical
    assert [name for name in vars(x509.KeyUsage) if name[0] != "_" and _is_set(usage.value, name)] == [
        "digital_signature"
    ]
    extended = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(extended) == [ExtendedKeyUsageOID.CLIENT_AUTH]
    assert not certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    identifier = certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    assert identifier == x509.SubjectKeyIdentifier.from_public_key(certificate.public_key())


def _is_set(usage: x509.KeyUsage, name: str) -> bool:
    try:
        return getattr(usage, name) is True
    except ValueError:  # encipher_only and decipher_only mean nothing without key_agreement
        return False


@pytest.mark.parametrize(
    ("subject", "name"), [("CN=" + "x" * 65, "CN"), ("x" * 65, "CN"), ("CN=app, C=DEU", "C"), ("CN=a\\,b,C=DEU", "C")]
)
def test_an_attribute_that_is_too_long(subject: str, name: str) -> None:
    """The attribute of a subject that cannot have such a length is named."""
    with pytest.raises(ValueError, match=f"^not a subject: {name}: Attribute's length must be"):
        parse_subject(subject)


def test_openssl_verifies_it(tmp_path: Path) -> None:
    """OpenSSL finds the signature right and the purpose "client" allowed."""
    assert new(tmp_path) == 0
    openssl("x509", "-inform", "DER", "-in", "app.cer", "-out", "app.crt", cwd=tmp_path)
    check = ("verify", "-x509_strict", "-check_ss_sig", "-purpose", "sslclient", "-CAfile", "app.crt", "app.crt")
    assert "OK" in openssl(*check, cwd=tmp_path)


def test_pem_is_pkcs8_key_and_certificate(tmp_path: Path) -> None:
    """The PEM holds a PKCS#8 key and the certificate, nothing else."""
    assert new(tmp_path) == 0
    labels = re.findall(r"-----BEGIN (.*)-----", (tmp_path / "app.pem").read_text())
    assert labels == ["PRIVATE KEY", "CERTIFICATE"]
    openssl("pkey", "-in", "app.pem", "-check", "-noout", cwd=tmp_path)


def test_pfx_without_password(tmp_path: Path) -> None:
    """OpenSSL opens the PFX with no password, and finds the key that belongs to the certificate."""
    assert new(tmp_path) == 0
    openssl("pkcs12", "-in", "app.pfx", "-passin", "pass:", "-nodes", "-out", "back.pem", cwd=tmp_path)
    assert load_certificate(tmp_path / "back.pem", datetime.now(UTC)).subject == "CN=app"


def test_pfx_with_password(tmp_path: Path) -> None:
    """A protected PFX is encrypted in the way every Windows and Key Vault can read, and opens with its password."""
    password = written(tmp_path / "password", "schl\u00fcssel\n".encode())
    assert new(tmp_path, "--pfx-password-file", str(password)) == 0
    given = ("-in", "app.pfx", "-passin", "pass:schlüssel", "-noout")
    info = subprocess.run(
        ["openssl", "pkcs12", "-info", *given], cwd=tmp_path, check=True, capture_output=True, text=True
    ).stderr
    assert "MAC: sha1" in info
    assert info.count("pbeWithSHA1And3-KeyTripleDES-CBC") == 2
    loaded = load_certificate(tmp_path / "app.pfx", datetime.now(UTC), password_file=password)
    assert loaded.subject == "CN=app"
    with pytest.raises(CredentialError, match="needs a password"):
        credentials.load(certificate_profile(tmp_path / "app.pfx"), datetime.now(UTC))


def test_longer_key(tmp_path: Path) -> None:
    """--bits decides on the length of the key."""
    assert new(tmp_path, "--bits", "3072") == 0
    key = x509.load_der_x509_certificate((tmp_path / "app.cer").read_bytes()).public_key()
    assert isinstance(key, rsa.RSAPublicKey)
    assert key.key_size == 3072


# ---- what it says


def test_output_tells_what_to_do(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The output names files, thumbprints and both ways of uploading; the command can be pasted as it is."""
    assert new(tmp_path / "my certs", "--days", "30") == 0
    out, err = capsys.readouterr()
    assert err == ""
    for part in (
        *(str(tmp_path / "my certs" / f"app.{suffix}") for suffix in ("pem", "pfx", "cer")),
        _fingerprint(tmp_path / "my certs", "-sha1").upper(),
        _fingerprint(tmp_path / "my certs", "-sha256").lower(),
        "Certificates & secrets",
        "Upload certificate",
    ):
        assert part in out
    command = next(shlex.split(line) for line in out.splitlines() if line.strip().startswith("az "))
    assert command[:5] == ["az", "ad", "app", "credential", "reset"]
    assert "--append" in command
    assert f"@{tmp_path}/my certs/app.cer" in command
    assert "PRIVATE KEY" not in out


def test_output_holds_a_configuration(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The lines for the configuration are TOML, and name the PEM by its whole path."""
    assert new(tmp_path / 'a"b\\c') == 0
    lines = capsys.readouterr().out.split("[[profile]]")[1]
    assert tomllib.loads(lines)["certificate"] == str(tmp_path / 'a"b\\c' / "app.pem")
    assert set(tomllib.loads(lines)) == {"name", "tenant", "client_id", "scopes", "certificate"}


# ---- names and subjects


@pytest.mark.parametrize(
    ("text", "subject"),
    [
        ("CN=app", "CN=app"),
        ("app", "CN=app"),
        ("  my app ", "CN=my app"),
        ("CN=app,O=Contoso,C=DE", "CN=app,O=Contoso,C=DE"),
        ("cn = app, o = Contoso", "CN=app,O=Contoso"),
        ("CN=Contoso\\, Ltd", "CN=Contoso\\, Ltd"),
        ("CN=Contoso\\, OU=x,O=y", "CN=Contoso\\, OU\\=x,O=y"),
        ("CN=a+OU=b,O=c", "CN=a+OU=b,O=c"),
        ("CN=Käse", "CN=Käse"),
        ("CN=app,E=a@b.example", "CN=app,1.2.840.113549.1.9.1=a@b.example"),
        ("CN=app,DC=contoso,DC=com", "CN=app,DC=contoso,DC=com"),
    ],
)
def test_subjects(text: str, subject: str) -> None:
    """Subjects are taken as people write them, and come out in RFC 4514's form."""
    assert parse_subject(text).rfc4514_string().replace("\\=", "=") == subject.replace("\\=", "=")


@pytest.mark.parametrize("text", ["", " ", "/CN=app/O=x", "CN=", "XY=app", "CN=app,C=Germany", "a\nb", "x" * 65])
def test_bad_subjects(text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What is no subject is wrong use of the command line (2), with the reason, and nothing is made."""
    assert new(tmp_path / "out", subject=text) == 2
    assert "subject" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("subject", "name"),
    [
        ("CN=graph", "graph"),
        ("CN=My App/1", "My-App-1"),
        ("CN=../../etc/passwd", "etc-passwd"),
        ("CN=app.contoso.com,O=x", "app.contoso.com"),
        ("O=x,CN=second", "second"),
    ],
)
def test_file_name_from_common_name(subject: str, name: str) -> None:
    """The common name becomes a name that is safe as a file, and as a profile."""
    assert file_name(parse_subject(subject)) == name


@pytest.mark.parametrize("subject", ["O=Contoso", "CN=///", "CN=ключ"])
def test_no_name_for_the_files(subject: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Where the subject gives no name, --name is asked for, and does."""
    assert new(tmp_path, subject=subject) == 2
    assert "--name" in capsys.readouterr().err
    assert names(tmp_path) == []


def test_name(tmp_path: Path) -> None:
    """--name decides on the name of the files."""
    assert new(tmp_path, "--name", "graph-2027", subject="O=Contoso") == 0
    assert names(tmp_path) == ["graph-2027.cer", "graph-2027.pem", "graph-2027.pfx"]


@pytest.mark.parametrize(
    "arguments",
    [
        ("--name", "../x"),
        ("--name", ""),
        ("--name", "a" * 101),
        ("--bits", "1024"),
        ("--bits", "2049"),
        ("--days", "0"),
        ("--days", "-1"),
        ("--days", "1000000"),
        ("--days", "soon"),
    ],
)
def test_wrong_use(arguments: tuple[str, str], tmp_path: Path) -> None:
    """Lengths, days and names that make no sense are wrong use of the command line, and nothing is made."""
    assert new(tmp_path / "out", *arguments) == 2
    assert not (tmp_path / "out").exists()

"""The emulator as a command: one line when it is ready, a directory that is kept, a clean end, clear refusals."""

from __future__ import annotations

import http.client
import json
import os
import signal
import ssl
import subprocess
import sys
import time
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest
from cryptography import x509

from agent.emulator.authority import open_directory
from agent.emulator.faults import KINDS
from agent.errors import OutputError
from agent.network.transport import Call, HttpsTransport
from tests.certificate_helpers import CLIENT_ID, make_certificate, openssl, written
from tests.emulator_helpers import TENANT

if TYPE_CHECKING:
    from collections.abc import Iterator

    from agent.network.transport import Reply

PAIR = make_certificate()
NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


@contextmanager
def emulator(directory: Path, *options: str) -> Iterator[tuple[subprocess.Popen[str], dict[str, str]]]:
    """Start the real command and yield the process and what it printed when it was ready."""
    command = [sys.executable, "-m", "agent", "emulator", "--state", "state", *options]
    process = subprocess.Popen(command, cwd=directory, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield process, json.loads(process.stdout.readline() or "{}")
    finally:
        process.kill()
        process.communicate()


def ended(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    """Wait for the end and return exit code and what else was printed."""
    out, err = process.communicate(timeout=10)
    return process.returncode, out, err


def ask(ready: dict[str, Any], path: str, *, body: bytes | None = None) -> Reply:
    """Send one request, trusting what the ready line names."""
    transport = HttpsTransport(Path(ready["ca_file"]))
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    try:
        return transport.request(Call(10), "POST" if body else "GET", ready["url"] + path, headers, body)
    finally:
        transport.close()


def token(ready: dict[str, Any], client_id: str, secret: str) -> dict[str, Any]:
    """Ask for a token by secret."""
    form = f"grant_type=client_credentials&client_id={client_id}&client_secret={secret}&scope=api%3A%2F%2Fx%2F.default"
    reply = ask(ready, f"/{ready['tenant']}/oauth2/v2.0/token", body=form.encode())
    answer: dict[str, Any] = json.loads(reply.body)
    return answer


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_says_when_it_is_ready_and_ends_at_once(tmp_path: Path, number: signal.Signals) -> None:
    """One JSON line with four keys, nothing else; a signal ends it with 0, even while a client waits."""
    with emulator(tmp_path) as (process, ready):
        assert set(ready) == {"url", "ca_file", "tenant", "admin_url"}
        assert ready["tenant"] == TENANT
        assert Path(ready["ca_file"]) == tmp_path / "state" / "ca.pem"
        assert ask(ready, f"/{TENANT}/v2.0/.well-known/openid-configuration").status == 200
        admin = http.client.HTTPConnection(urlsplit(ready["admin_url"]).netloc, timeout=10)
        admin.request("POST", "/faults", json.dumps({"kind": "hang"}), {"Content-Type": "application/json"})
        assert admin.getresponse().status == 200
        context = ssl.create_default_context(cafile=ready["ca_file"])
        waiting = http.client.HTTPSConnection(urlsplit(ready["url"]).netloc, context=context, timeout=10)
        waiting.request("GET", "/")
        began = time.monotonic()
        process.send_signal(number)
        assert ended(process) == (0, "", "")
        assert time.monotonic() - began < 2
        admin.close()
        waiting.close()


def test_apps_roles_resources_and_lifetime_are_options(tmp_path: Path) -> None:
    """What the command line registers is registered; a client may have several credentials."""
    written(tmp_path / "app.cer", PAIR.der)
    written(tmp_path / "secret", b"swordfish\n")
    options = ["--app", f"{CLIENT_ID}=app.cer", "--secret", f"{CLIENT_ID}=secret", "--role", f"{CLIENT_ID}=A"]
    options += ["--role", f"{CLIENT_ID}=B", "--resource", "api://x", "--token-lifetime", "90s"]
    with emulator(tmp_path, *options, "--tenant", "fabrikam.com", "--verbose") as (process, ready):
        assert ready["tenant"] == "fabrikam.com"
        answer = token(ready, CLIENT_ID, "swordfish")
        assert answer["expires_in"] == 90
        admin = http.client.HTTPConnection(urlsplit(ready["admin_url"]).netloc, timeout=10)
        admin.request("GET", "/")
        overview = json.loads(admin.getresponse().read())
        admin.close()
        process.terminate()
        code, _, log = ended(process)
    assert overview["apps"][0]["certificates"] == [PAIR.thumbprint]
    assert overview["apps"][0]["roles"] == ["A", "B"]
    assert overview["resources"] == ["api://x"]
    assert (code, log.count("/oauth2/v2.0/token")) == (0, 1)
    assert "swordfish" not in log


def test_what_is_trusted_stays_across_a_restart(tmp_path: Path) -> None:
    """The same directory means the same authority and the same keys, so that clients need no new ca_file."""
    documents = []
    for _ in range(2):
        with emulator(tmp_path) as (_, ready):
            documents.append((Path(ready["ca_file"]).read_bytes(), ask(ready, f"/{TENANT}/discovery/v2.0/keys").body))
    (first_ca, first_keys), (second_ca, second_keys) = documents
    assert first_ca == second_ca
    assert json.loads(first_keys)["keys"][0]["n"] == json.loads(second_keys)["keys"][0]["n"]
    assert {path.name for path in (tmp_path / "state").iterdir()} == {"ca.pem", "ca.key", "signing.pem"}
    assert [oct((tmp_path / "state" / name).stat().st_mode)[-3:] for name in ("ca.key", "signing.pem")] == ["600"] * 2


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]"])
def test_it_is_trusted_by_every_name_of_loopback(tmp_path: Path, host: str) -> None:
    """The certificate is good for each address it may listen on, by name and by number, under strict checks."""
    with emulator(tmp_path, "--listen", f"{host}:0") as (_, ready):
        parts = urlsplit(ready["url"])
        context = ssl.create_default_context(cafile=ready["ca_file"])
        context.verify_flags |= ssl.VERIFY_X509_STRICT
        for name in {parts.hostname, host.strip("[]")}:
            connection = http.client.HTTPSConnection(str(name), parts.port, context=context, timeout=10)
            connection.request("GET", f"/{TENANT}/discovery/v2.0/keys")
            assert connection.getresponse().status == 200
            connection.close()


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (["--listen", "0.0.0.0:0"], 2, "not loopback"),
        (["--listen", "192.0.2.1:443"], 2, "not loopback"),
        (["--listen", "127.0.0.1"], 2, "HOST:PORT"),
        (["--listen", "127.0.0.1:99999"], 2, "HOST:PORT"),
        (["--listen", ":443"], 2, "HOST:PORT"),
        (["--app", "just-an-id"], 2, "CLIENT_ID=CERT.cer"),
        (["--app", "id=missing.cer"], 78, "missing.cer: does not exist"),
        (["--app", "id=text.cer"], 78, "text.cer: holds no certificate"),
        (["--app", "id=small.cer"], 78, "small.cer: Entra wants an RSA key of at least 2048 bits"),
        (["--secret", "id=empty"], 78, "empty: holds no secret"),
        (["--role", "id=A"], 2, "id has no --app or --secret"),
        (["--tenant", "contoso"], 2, "neither a GUID nor a domain"),
        (["--token-lifetime", "soon"], 2, "a duration is written"),
        (["--token-lifetime", "0s"], 2, "at least 1s"),
    ],
)
def test_a_mistake_is_named(tmp_path: Path, options: list[str], code: int, said: str) -> None:
    """Wrong options exit with 2, wrong files with 78; the message names what is wrong; nothing is served."""
    written(tmp_path / "text.cer", b"hello")
    written(tmp_path / "empty", b"")
    small = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", "small.key"]
    if "id=small.cer" in options:
        openssl("req", "-x509", *small, "-subj", "/CN=small", "-days", "1", "-out", "small.cer", cwd=tmp_path)
    with emulator(tmp_path, *options) as (process, ready):
        returned, _, err = ended(process)
    assert (returned, ready) == (code, {})
    assert said in err
    assert "Traceback" not in err


def test_a_port_that_is_taken_is_named(tmp_path: Path) -> None:
    """A second emulator on the same port says so, with the exit code of what passes, and writes nothing."""
    (tmp_path / "first").mkdir()
    (tmp_path / "second").mkdir()
    with emulator(tmp_path / "first") as (_, ready):
        netloc = urlsplit(ready["url"]).netloc
        with emulator(tmp_path / "second", "--listen", netloc) as (process, nothing):
            code, _, err = ended(process)
    assert (code, nothing) == (75, {})
    assert f"{netloc}: Address already in use" in err
    assert not list((tmp_path / "second").iterdir())


def test_help_shows_options_administration_and_every_fault() -> None:
    """--help is enough to use it: examples, the interface, and each kind of fault."""
    command = [sys.executable, "-m", "agent", "emulator", "--help"]
    shown = subprocess.run(command, check=True, capture_output=True, text=True, timeout=30).stdout
    for word in ("--listen HOST:PORT", "CLIENT_ID=CERT.cer", "Examples:", "POST   /faults", *KINDS):
        assert word in shown
    assert max(map(len, shown.splitlines())) <= 100


def test_its_authority_vouches_for_nothing_but_loopback(tmp_path: Path) -> None:
    """A certificate for another name is refused although the authority signed it; its own servers are accepted."""
    opened = open_directory(tmp_path)
    constraints = x509.load_pem_x509_certificate(opened.ca_file.read_bytes()).extensions.get_extension_for_class(
        x509.NameConstraints
    )
    assert constraints.critical
    extensions = "subjectAltName=DNS:login.microsoftonline.com"
    openssl("req", "-newkey", "rsa:2048", "-nodes", "-keyout", "x.key", "-subj", "/CN=x", "-out", "x.csr", cwd=tmp_path)
    written(tmp_path / "x.ext", extensions.encode())
    ca = ["-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial"]
    openssl("x509", "-req", "-in", "x.csr", *ca, "-extfile", "x.ext", "-days", "1", "-out", "x.pem", cwd=tmp_path)
    command = ["openssl", "verify", "-CAfile", "ca.pem", "x.pem"]
    verdict = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=30)
    assert "permitted subtree violation" in verdict.stdout + verdict.stderr


def test_an_authority_that_is_about_to_end_is_made_anew(tmp_path: Path) -> None:
    """Nine years later the directory gives a new authority, and the signing key stays."""
    first = open_directory(tmp_path, NOW)
    before, signing = first.ca_file.read_bytes(), first.signing_key.key_id
    assert open_directory(tmp_path, NOW + timedelta(days=3000)).ca_file.read_bytes() == before
    later = open_directory(tmp_path, NOW + timedelta(days=3600))
    assert later.ca_file.read_bytes() != before
    assert later.signing_key.key_id == signing


@pytest.mark.parametrize("name", ["ca.pem", "ca.key", "signing.pem"])
def test_a_directory_of_something_else_is_left_alone(tmp_path: Path, name: str) -> None:
    """A file that the emulator did not make is named, and not overwritten."""
    open_directory(tmp_path)
    (tmp_path / name).write_text("something else")
    with pytest.raises(OutputError) as caught:
        open_directory(tmp_path)
    assert "was not made by the emulator" in caught.value.message
    assert (tmp_path / name).read_text() == "something else"


def test_a_directory_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    """A file in the directory's place gives one clear error."""
    (tmp_path / "state").write_text("")
    with emulator(tmp_path) as (process, _):
        code, _, err = ended(process)
    assert code in (2, 78)
    assert "state" in err
    assert os.linesep in err

"""Files that ask too much of the agent, or of whoever reads what it says: each was found to do harm, and does none."""

from __future__ import annotations

import base64
import json
import os
import re
import resource
import subprocess
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, pkcs12
from cryptography.x509.oid import NameOID

from agent import cli, formats, state, status
from agent.commands.cert import _description
from agent.config.values import is_convoluted
from agent.credentials import keyfiles, keypair, wrapping
from agent.tokens import AccessToken
from tests.certificate_helpers import NOW, Pair, load_certificate, make_certificate, openssl, pool_key, refused, written
from tests.certificate_helpers import profile as any_profile
from tests.fuzz.inputs import MAIN, PROFILE_TEXT, load
from tests.fuzz.local import STATUS
from tests.fuzz.target import clean
from tests.process_helpers import COMMAND, environment, write_config

if TYPE_CHECKING:
    from collections.abc import Callable

SOON = 10.0
"""Seconds; without the bounds that are tested here it would be minutes and more."""
PATH = Path("/f")


# ---- the configuration

LONG_KEYS = {
    "pair": b".".join([b"a"] * 300_000) + b" = 1\n",
    "header": b"[" + b" . ".join([b'"a"'] * 100_000) + b"]\n",
    "inline": b"a = {" + b".".join([b"'a'"] * 200_000) + b" = 1}\n",
}


@pytest.mark.parametrize("text", LONG_KEYS.values(), ids=LONG_KEYS.keys())
def test_a_key_of_a_great_many_parts(text: bytes) -> None:
    """A key of a hundred thousand parts, over which the parser would sit for hours, is refused at once, as too deep."""
    began = time.monotonic()
    problems = load({MAIN: text})
    assert isinstance(problems, list)
    assert "nested too deeply" in problems[0]
    assert time.monotonic() - began < SOON


def test_looking_for_such_keys_is_cheap() -> None:
    """What is no such key, and looks like one for as long as it can, takes no time either; what is normal passes."""
    texts = ["a" * 10**6, "a." * 99 + "\n", '"' * 10**6, "." * 10**6, "a " * 500_000, '"a' * 300_000, "a" + " " * 10**6]
    began = time.monotonic()
    for text in texts:
        assert not is_convoluted(text)
    assert time.monotonic() - began < SOON
    assert not is_convoluted("x = '" + ".".join(["label"] * 60) + "'")


HUGE = "0x" + "f" * 5000


@pytest.mark.parametrize("key", ["refresh.at", "timeout", "refresh.min_remaining", "on_refresh.timeout"])
def test_numbers_without_end(key: str) -> None:
    """A number of thousands of digits is refused in our words, where Python's own would be of no use."""
    problems = load({MAIN: PROFILE_TEXT.partition(b"refresh")[0] + f"{key} = {HUGE}\n".encode()})
    assert isinstance(problems, list)
    assert not re.search("limit|set_int_max|not a number", " ".join(problems))
    mode = PROFILE_TEXT.replace(b"0o640", HUGE.encode())
    problems = load({MAIN: mode})
    assert isinstance(problems, list)
    assert "octal digits" in problems[0]


def test_names_in_braces() -> None:
    """A field of a template that does not exist is named without what steers a terminal, and not in full length."""
    for name in ("a\x1b[31m", "a\x00", "x" * 10_000, "access_token.__class__", "access_token[0]", "0", ""):
        problem = formats.template_problem(f"{{access_token}} {{{name}}}")
        assert problem is not None
        clean(problem)
        assert len(problem) < 400
    many = formats.template_problem("{access_token}" + "".join(f"{{a{n}}}" for n in range(1000)))
    assert many is not None
    assert len(many) < 400


def test_a_template_multiplies_the_token_only_so_often() -> None:
    """A template may hold the token several times, but not so often that the file could not be read again."""
    assert formats.template_problem("{access_token}" * 8) is None
    assert "9 times" in (formats.template_problem("{access_token}" * 9) or "")
    assert "longer" in (formats.template_problem("x" * 70_000 + "{access_token}") or "")


ODD: dict[str, Callable[[Path], object]] = {
    "fifo": os.mkfifo,
    "device": lambda path: path.symlink_to("/dev/zero"),
    "loop": lambda path: path.symlink_to(path.name),
    "directory": lambda path: path.mkdir(),
    "hundred megabytes": lambda path: os.truncate(written(path, b""), 100 << 20),
    "nul": lambda path: path.write_bytes(b"\0" * 1000),
}
PLACES = ("main", "include", "certificate", "key", "password_file", "template_file", "ca_file", "client_secret_file")


def test_odd_files_everywhere(tmp_path: Path) -> None:
    """Pipes, devices, loops and giants in the place of any file: `check` ends soon, needs little, and says which."""
    profiles: list[dict[str, Any]] = []
    good = written(tmp_path / "good.pem", make_certificate(not_after=datetime.now(UTC) + timedelta(days=9)).pem)
    for kind, make in ODD.items():
        for place in PLACES[2:]:
            path = tmp_path / f"{kind}-{place}".replace(" ", "-")
            make(path)
            profile: dict[str, Any] = {
                "name": path.name,
                "tenant": "contoso.example",
                "client_id": "ace7a10d-aaaa-4a01-8663-1440b6b78cb9",
            }
            profile |= {"scopes": "api://x/.default", "certificate": str(good)}
            if place == "certificate":
                profile[place] = str(path)
            elif place in ("key", "password_file"):
                profile["certificate"] = {"path": str(good), place: str(path)}
            elif place == "client_secret_file":
                profile = {key: value for key, value in profile.items() if key != "certificate"} | {place: str(path)}
            elif place == "ca_file":
                profile[place] = str(path)
            else:
                profile["token_file"] = [{"path": "x", "format": "template", place: str(path)}]
            profiles.append(profile)
    templates = [profile for profile in profiles if "token_file" in profile]
    others = [profile for profile in profiles if "token_file" not in profile]
    for number, chosen in enumerate((templates, others)):
        config = write_config(tmp_path, *chosen, name=f"{number}.toml")
        done = bounded("check", "--config", config)
        assert done.returncode == 78, done.stderr
        clean(done.stdout.replace("\t", " "))
        for profile in chosen:
            if not (
                profile["name"].startswith("nul") and ("password" in profile["name"] or "template" in profile["name"])
            ):
                assert str(tmp_path / profile["name"]) in done.stderr, profile["name"]


@pytest.mark.parametrize("kind", ODD)
def test_odd_configurations(tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str) -> None:
    """The same in the place of the configuration, and of a file that it includes."""
    ODD[kind](tmp_path / "odd.toml")
    config = write_config(tmp_path, include=[str(tmp_path / "odd.toml")])
    for name in (tmp_path / "odd.toml", config):
        assert f"{tmp_path / 'odd.toml'}" in called(capsys, {78}, "check", "--config", name)


def test_patterns_over_links_that_lead_back(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A pattern of many wildcards, in a directory full of links to itself, is refused, and is not searched for ever."""
    for name in "abcd":
        (tmp_path / name).symlink_to(".")
    began = time.monotonic()
    config = write_config(tmp_path, include=[f"{tmp_path}/{'*/' * 30}*.toml"])
    assert "more than 8 parts with wildcards" in called(capsys, {78}, "check", "--config", config)
    config = write_config(tmp_path, include=[f"{tmp_path}/**/conf.d/*.toml"])
    called(capsys, {0, 78}, "check", "--config", config)
    assert time.monotonic() - began < SOON


def bounded(*arguments: object) -> subprocess.CompletedProcess[str]:
    """Run the command with 300 MB for all its data, and little time on a processor."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_DATA, (300 << 20, 300 << 20))
        resource.setrlimit(resource.RLIMIT_CPU, (30, 30))

    return subprocess.run(
        [*COMMAND, *map(str, arguments)],
        env=environment(), stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=50, check=False,
        preexec_fn=limit,
    )  # fmt: skip


@pytest.mark.parametrize("name", ["n" * 300, "\x1b[31m", "/" * 5000, "a/" * 3000])
@pytest.mark.parametrize("command", [["show"], ["cert", "show"], ["status"], ["refresh"], ["explain"]])
def test_names_on_the_command_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], command: list[str], name: str
) -> None:
    """A name that can be no file's, or steers a terminal, is answered with a message; `show` once had a traceback."""
    called(capsys, {2, 69, 78}, *command, name, "--config", write_config(tmp_path))


def called(capsys: pytest.CaptureFixture[str], codes: set[int], *arguments: object) -> str:
    """Call the command in this process, check how it ended and what it said, and return that."""
    code = cli.run([str(argument) for argument in arguments])
    out, err = capsys.readouterr()
    assert code in codes, (arguments, out, err)
    clean(out)
    clean(err)
    return out + err


# ---- keys and certificates


def test_rounds_without_end(tmp_path: Path) -> None:
    """A key or PFX whose password would be hashed for minutes or hours is refused unopened, and says why."""
    written(tmp_path / "app.pem", make_certificate().pem)
    key, export = ("pkcs8", "-topk8", "-in", "app.pem"), ("pkcs12", "-export", "-in", "app.pem")
    secret = ("-passout", "pass:pw")
    openssl(*key, *secret, "-iter", "2048", "-out", "pbkdf2", cwd=tmp_path)
    openssl(*key, *secret, "-v1", "PBE-SHA1-3DES", "-iter", "2048", "-out", "pbes1", cwd=tmp_path)
    openssl(*export, *secret, "-iter", "2048", "-nomac", "-out", "unsigned.pfx", cwd=tmp_path)
    openssl(
        *export, *secret, "-certpbe", "NONE", "-keypbe", "NONE", "-iter", "2048", "-out", "signed.pfx", cwd=tmp_path
    )
    written(tmp_path / "password", b"pw")
    for name in ("pbkdf2", "pbes1", "unsigned.pfx", "signed.pfx"):
        content = raw((tmp_path / name).read_bytes())
        assert sum(wrapping._rounds(content)) >= 2048, name
        worse = content.replace(b"\x02\x02\x08\x00", b"\x02\x02\x7f\xff")  # the same length, so that all else is right
        assert sum(wrapping._rounds(worse)) >= 0x7FFF, name
    for name, content in bombs(tmp_path).items():
        began = time.monotonic()
        path, further = written(tmp_path / name, content), {"password_file": tmp_path / "password"}
        if name.endswith(".der"):
            path, further["key"] = written(tmp_path / "app.cer", make_certificate().der), path
        error = refused(path, **further)
        assert "rounds to make a key of the password" in error.message
        assert time.monotonic() - began < SOON


def raw(content: bytes) -> bytes:
    """Return the bytes within PEM."""
    return keyfiles._decoded(content.split(b"-----")[2]) if content.startswith(b"-----") else content


def bombs(directory: Path) -> dict[str, bytes]:
    """Return files with enormous numbers of rounds; made by hand, since making them takes as long as opening them."""
    number = b"\x02\x04\x7f\xff\xff\xff"
    pbkdf2 = sequence(oid("2a864886f70d01050c"), sequence(b"\x04\x08saltsalt", number))
    scheme = sequence(
        oid("2a864886f70d01050d"), sequence(pbkdf2, sequence(oid("60864801650304012a"), b"\x04\x10" + b"i" * 16))
    )
    scrypt = sequence(oid("2b06010401da47040b"), sequence(b"\x04\x08saltsalt", *[b"\x02\x03\x02\x00\x00"] * 3))
    memory = sequence(
        oid("2a864886f70d01050d"), sequence(scrypt, sequence(oid("60864801650304012a"), b"\x04\x10" + b"i" * 16))
    )
    cert = make_certificate().cert_pem
    content = sequence(oid("2a864886f70d010701"), b"\xa0\x04\x04\x02\x30\x00")
    digest = sequence(sequence(oid("2b0e03021a"), b"\x05\x00"), b"\x04\x14" + b"d" * 20)
    return {
        "pbkdf2.pem": block("ENCRYPTED PRIVATE KEY", sequence(scheme, b"\x04\x20" + b"c" * 32)) + cert,
        "scrypt.pem": block("ENCRYPTED PRIVATE KEY", sequence(memory, b"\x04\x20" + b"c" * 32)) + cert,
        "mac.pfx": sequence(b"\x02\x01\x03", content, sequence(digest, b"\x04\x08saltsalt", number)),
        "key.der": sequence(scheme, b"\x04\x20" + b"c" * 32),
    }


def length(size: int) -> bytes:
    """Return a length of DER."""
    if size < 128:
        return bytes([size])
    octets = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes([0x80 | len(octets)]) + octets


def sequence(*parts: bytes) -> bytes:
    """Return a SEQUENCE of DER."""
    return b"\x30" + length(sum(map(len, parts))) + b"".join(parts)


def integer(number: int) -> bytes:
    """Return an INTEGER of DER."""
    octets = number.to_bytes(number.bit_length() // 8 + 1, "big")
    return b"\x02" + length(len(octets)) + octets


def oid(digits: str) -> bytes:
    """Return an OBJECT IDENTIFIER of DER, given its content."""
    return b"\x06" + length(len(digits) // 2) + bytes.fromhex(digits)


def block(label: str, der: bytes) -> bytes:
    """Return a block of PEM."""
    return f"-----BEGIN {label}-----\n".encode() + base64.encodebytes(der) + f"-----END {label}-----\n".encode()


def fake_key(bits: int) -> bytes:
    """Return what looks like an RSA key of so many bits; to make a real one takes minutes."""
    half = bits // 2
    p, q = (1 << half) - 1 - 2 * 12345, (1 << half) - 1 - 4 * 6789
    d = (1 << (bits - 1)) - 1
    return sequence(*map(integer, (0, p * q, 65537, d, p, q, d % (p - 1) | 1, d % (q - 1) | 1, (1 << (half - 1)) - 1)))


def test_a_key_of_sixty_thousand_bits(tmp_path: Path) -> None:
    """A key so long that each signature takes minutes is refused before it is used, in a PEM and in a PFX."""
    pem = block("RSA PRIVATE KEY", fake_key(65536))
    began = time.monotonic()
    error = refused(written(tmp_path / "app.pem", pem + make_certificate().cert_pem))
    assert "65536 bits" in error.message
    key = keyfiles.parse(PATH, pem, None).private_key()
    pfx = pkcs12.serialize_key_and_certificates(None, key, None, None, NoEncryption())  # type: ignore[arg-type]
    error = refused(written(tmp_path / "app.pfx", pfx))
    assert "more than 16384 bits" in error.message
    assert time.monotonic() - began < SOON


def test_a_key_of_sixteen_thousand_bits_is_no_giant(tmp_path: Path) -> None:
    """The longest key that OpenSSL verifies is not taken for too long by the size of what holds it."""
    key = keyfiles.parse(PATH, block("RSA PRIVATE KEY", fake_key(16384)), None).private_key()
    plain = pkcs12.serialize_key_and_certificates(None, key, None, None, NoEncryption())  # type: ignore[arg-type]
    assert wrapping.excess(PATH, plain) is None
    assert wrapping.excess(PATH, make_certificate().pfx(b"pw")) is None


def test_hundreds_of_certificates(tmp_path: Path) -> None:
    """Of hundreds of certificates each may have to be compared with each, which takes minutes: too many are refused."""
    pair = make_certificate()
    error = refused(written(tmp_path / "app.pem", pair.pem + pair.cert_pem * 200))
    assert "holds 201 certificates" in error.message
    key = ec.generate_private_key(ec.SECP521R1())
    ring = [make_certificate("x", key, issuer=Pair(make_certificate("x", key).certificate, key)) for _ in range(40)]
    leaf = make_certificate("y", pool_key(0), issuer=ring[0])
    began = time.monotonic()
    proven = keypair.prove(PATH, [keyfiles.certificate_of(each.der) for each in (leaf, *ring)], PATH, pool_key(0))
    assert all(len(chain) <= keypair.LONGEST_CHAIN for chain in proven.chains)
    assert time.monotonic() - began < SOON


def test_other_kinds_of_keys(tmp_path: Path) -> None:
    """Keys of elliptic curves, and RSA keys that are too short, are refused by their kind, in whatever file."""
    for key in (ed25519.Ed25519PrivateKey.generate(), ec.generate_private_key(ec.SECP256R1())):
        pair = make_certificate(key=key)
        error = refused(written(tmp_path / "app.pem", pair.pem))
        assert "only RSA keys" in error.message
        der = key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
        error = refused(written(tmp_path / "app.cer", make_certificate().der), key=written(tmp_path / "key", der))
        assert "only RSA keys" in error.message
    error = refused(written(tmp_path / "app.pem", make_certificate(key=pool_key(0, 1024)).pem))
    assert "1024 bits" in error.message


YEARS = ((1, 9999), (1950, 9999), (9998, 9999), (1, 1))


@pytest.mark.parametrize("years", YEARS)
def test_times_at_the_end_of_all_time(tmp_path: Path, years: tuple[int, int]) -> None:
    """A certificate from the year 1 or until 9999 is used if it is valid now, and described in any case."""
    content = dated(*years)
    parsed = keyfiles.parse(PATH, content, None)
    for line in _description(parsed, NOW):
        clean(line)
    path = written(tmp_path / "app.pem", content)
    if years[0] < 2026 < years[1]:
        assert load_certificate(path).not_after.year == years[1]
    else:
        assert re.search("expired on|not valid before", refused(path).message)


def dated(first: int, last: int) -> bytes:
    """Return a certificate with such years, which no maker takes: rewritten, with a signature that nobody checks."""
    pair = make_certificate(not_before=datetime(2051, 1, 1, tzinfo=UTC), not_after=datetime(2052, 1, 1, tzinfo=UTC))
    begin, end = (f"{year:04}0101000000Z".encode() for year in (first, last))
    der = pair.der.replace(b"20510101000000Z", begin).replace(b"20520101000000Z", end)
    assert begin in der
    return pair.key_pem + block("CERTIFICATE", der)


@pytest.mark.filterwarnings("ignore:Attribute's length")
def test_names_of_certificates(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A subject that steers a terminal, or fills it, is shown as escapes, and not in full length."""
    for text in ("\x1b[2J\x1b[31mroot#", "a\nb\r", "\u202egnp.exe", "x" * 200_000):
        attribute = x509.NameAttribute(NameOID.COMMON_NAME, text, _validate=False)
        name = x509.Name([attribute])
        built = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(pool_key().public_key())
        built = built.serial_number(1).not_valid_before(NOW - timedelta(1)).not_valid_after(NOW - timedelta(hours=1))
        pair = Pair(built.sign(pool_key(), hashes.SHA256()), pool_key())
        error = refused(written(tmp_path / "app.pem", pair.pem))
        assert len(error.message) < 3000
        called(capsys, {0}, "cert", "show", tmp_path / "app.pem")


def test_a_wrong_password_is_not_quoted(tmp_path: Path) -> None:
    """Neither the wrong password nor anything of the key stands in the error, in any form of key."""
    pair = make_certificate()
    password = written(tmp_path / "password", b"swordfish")
    for content in (
        pair.encrypted_key_pem(b"pw") + pair.cert_pem,
        pair.pfx(b"pw"),
        pair.encrypted_key_pem(b"pw")[:-200],
    ):
        error = refused(written(tmp_path / "app", content), password_file=password)
        assert pair.key_pem[40:80].decode() not in f"{error.message}{error.hint}{error.__cause__!r}"


# ---- our own files

TOKEN = AccessToken("opaque", "Bearer", NOW, NOW + timedelta(hours=1))


@pytest.mark.parametrize(
    ("key", "value"),
    [("expires_at", "9999-12-31T23:59:59+00:00"), ("expires_at", "9026-03-01T13:00:00+00:00"), ("acquired_at",
    "0001-01-01T00:00:00+00:00"),
     ("acquired_at", "2026-03-01T14:00:00+00:00"), ("refresh_in", 1e13), ("refresh_in", -1), ("refresh_in", 1e300)],
)  # fmt: skip
def test_times_of_a_damaged_state(key: str, value: object) -> None:
    """A flipped bit in a year makes no token that lives for ever, or that no arithmetic can deal with."""
    document = json.loads(state.render({"a": state.record_of(any_profile(certificate="/c"), TOKEN)}))
    assert state.parse(json.dumps(document).encode())["a"].restore("opaque") == TOKEN
    document["profiles"]["a"][key] = value
    try:
        record = state.parse(json.dumps(document).encode())["a"]
    except ValueError:
        return
    assert record.restore("opaque") is None


def test_paths_of_a_damaged_state() -> None:
    """What no file can be called is no path; deleting it would once have ended in a traceback."""
    document = json.loads(state.render({"a": state.record_of(any_profile(certificate="/c"), TOKEN)}))
    for path in ("relative", "/a\0b", "/\ud800"):
        document["profiles"]["a"]["paths"] = [path]
        with pytest.raises(ValueError, match=r".+"):
            state.parse(json.dumps(document).encode())


DAMAGES: dict[str, tuple[tuple[str | int, ...], object]] = {
    "error is a number": (("agent", "config", "error"), 5),
    "version is a list": (("agent", "version"), [["x"]]),
    "message is a number": (("profiles", 0, "last_error", "message"), 5),
    "reason is a number": (("profiles", 0, "credential", "candidate_error"), 7),
    "hook is a number": (("profiles", 0, "hook", "error"), 7),
    "path is a number": (("profiles", 0, "token_files", 0, "path"), 7),
    "path with a NUL": (("profiles", 0, "token_files", 0, "path"), "/a\0b"),
    "path of half a character": (("profiles", 0, "token_files", 0, "path"), "/\ud800"),
    "path without end": (("profiles", 0, "token_files", 0, "path"), "/" + "a" * 5000),
    "name steers": (("profiles", 0, "name"), "\x1b[2Jgraph"),
    "version steers": (("agent", "version"), "\x1b[2J"),
    "message steers": (("profiles", 0, "last_error", "message"), "\x1b[2J"),
    "deep": (("profiles", 0, "name"), "DEEP"),
    "endless number": (("agent", "pid"), "ENDLESS"),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_status(tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    """`status`, `wait` and `get` say what they can, or that it is damaged; never a traceback, nor what steers."""
    (tmp_path / "run").mkdir()
    document = json.loads(json.dumps(STATUS))
    keys, value = DAMAGES[name]
    inner: Any = document
    for key in keys[:-1]:
        inner = inner[key]
    inner[keys[-1]] = value
    if "expires_at" in document["profiles"][0]:
        document["profiles"][0]["expires_at"] = status.rfc3339(datetime.now(UTC) + timedelta(hours=1))
    text = json.dumps(document).replace('"DEEP"', "[" * 50_000 + "]" * 50_000).replace('"ENDLESS"', "9" * 5000)
    (tmp_path / "run" / "status.json").write_text(text)
    config = write_config(tmp_path)
    for command in (["status"], ["status", "--json"], ["wait", "a", "--timeout", "0s"], ["get", "a"]):
        called(capsys, {0, 2, 69, 75, 77, 78}, *command, "--config", config)


def test_a_status_that_is_no_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A directory, a loop and a giant in the place of status.json: every command that reads it says so."""
    (tmp_path / "run").mkdir()
    config = write_config(tmp_path)
    for kind in ("directory", "loop", "hundred megabytes", "fifo"):
        path = tmp_path / "run" / "status.json"
        ODD[kind](path)
        for command in (["status"], ["wait", "--timeout", "0s"], ["get", "a"]):
            assert str(path) in called(capsys, {78}, *command, "--config", config)
        path.rmdir() if kind == "directory" else path.unlink()


def test_half_a_file_asks_for_nothing() -> None:
    """What `wrapping` looks at may be cut off anywhere: it answers, and never fails."""
    content = make_certificate().pfx(b"pw")
    for end in range(0, len(content), 7):
        assert wrapping.excess(PATH, content[:end]) is None
    for match in re.finditer(b"\x06", content):
        assert wrapping.excess(PATH, content[: match.end() + 9]) is None

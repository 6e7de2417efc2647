"""Whatever stands in a certificate's file, the outcome is a credential or an error for the operator."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from agent.credentials import store as credentials
from agent.errors import CredentialError
from tests.certificate_helpers import NOW, certificate_profile, make_certificate, make_chain, written
from tests.fuzz import STEADY

if TYPE_CHECKING:
    from pathlib import Path

    from agent.config.model import Profile

MUTATIONS = st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), min_size=1, max_size=4)
CUT = st.floats(0.1, 1)


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory for all examples: each of them overwrites the one before."""
    return tmp_path_factory.mktemp("fuzz")


def outcome(profile: Profile) -> str:
    """Return what an operator would read; nothing but our own error may come of any content."""
    try:
        return repr(credentials.load(profile, NOW))
    except CredentialError as error:
        return error.message + error.hint


def load(directory: Path, content: bytes, *, as_key: bool = False) -> None:
    """Load the content as certificate file, or as key file of a good certificate."""
    path = written(directory / "fuzzed", content)
    password = written(directory / "password", b"pw")
    good = written(directory / "good.crt", make_certificate().cert_pem)
    certificate, further = (good, {"key": path}) if as_key else (path, {})
    assert outcome(certificate_profile(certificate, send_chain=True, password_file=password, **further)).isprintable()


def mutated(content: bytes, mutations: list[tuple[float, int]], cut: float) -> bytes:
    result = bytearray(content)
    for place, value in mutations:
        result[int(place * len(result))] = value
    return bytes(result[: int(cut * len(result))] if cut < 0.95 else result)


@given(content=st.binary(max_size=200), as_key=st.booleans())
@example(content=b"-----BEGIN " * 5000, as_key=False)
@example(content=b"-----BEGIN A-----" * 5000, as_key=False)
@example(content=b"-----BEGIN CERTIFICATE-----\n\n-----END CERTIFICATE-----", as_key=False)
@example(content=b"-----BEGIN PRIVATE KEY-----\n\n-----END PRIVATE KEY-----", as_key=True)
@example(content=b"-----BEGIN ENCRYPTED PRIVATE KEY-----\nMAA=\n-----END ENCRYPTED PRIVATE KEY-----", as_key=True)
@example(content=b"0\x80\x02\x01\x03", as_key=False)
@example(content=b"MIIA", as_key=False)
@example(content=b"MI" + b"A" * 5, as_key=False)
@settings(**STEADY)
def test_any_bytes(directory: Path, content: bytes, as_key: bool) -> None:  # noqa: FBT001 - hypothesis gives it
    """Random bytes."""
    load(directory, content, as_key=as_key)


@given(body=st.binary(max_size=60), label=st.sampled_from(["CERTIFICATE", "PRIVATE KEY", "RSA PRIVATE KEY", "X Y"]))
@settings(**STEADY)
def test_any_blocks(directory: Path, body: bytes, label: str) -> None:
    """PEM blocks with anything in them."""
    block = f"-----BEGIN {label}-----\n".encode() + body + f"\n-----END {label}-----\n".encode()
    load(directory, make_certificate().cert_pem + block)


@given(mutations=MUTATIONS, cut=CUT, encrypted=st.booleans())
@settings(**STEADY, max_examples=150)
def test_damaged_pem(directory: Path, mutations: list[tuple[float, int]], cut: float, encrypted: bool) -> None:  # noqa: FBT001 - hypothesis gives it
    """PEM files with a chain and a key, with bytes changed and the end cut off."""
    chain = make_chain()
    key = chain.leaf.encrypted_key_pem(b"pw") if encrypted else chain.leaf.key_pem
    load(directory, mutated(key + chain.leaf.cert_pem + chain.lower.cert_pem, mutations, cut))


@given(mutations=MUTATIONS, cut=CUT, protected=st.booleans())
@settings(**STEADY, max_examples=150)
def test_damaged_pfx(directory: Path, mutations: list[tuple[float, int]], cut: float, protected: bool) -> None:  # noqa: FBT001 - hypothesis gives it
    """PFX files, with bytes changed and the end cut off."""
    chain = make_chain()
    load(directory, mutated(chain.leaf.pfx(b"pw" if protected else None, [chain.lower]), mutations, cut))


@given(mutations=MUTATIONS)
@settings(**STEADY, max_examples=200)
def test_damaged_der(directory: Path, mutations: list[tuple[float, int]]) -> None:
    """Certificates and keys in DER, where every changed byte goes right into the parsers."""
    pair = make_certificate()
    written(directory / "key", mutated(pair.key_der, mutations, 1))
    certificate = written(directory / "crt", mutated(pair.der, mutations, 1))
    assert outcome(certificate_profile(certificate, key=directory / "key")).isprintable()

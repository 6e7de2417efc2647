"""Connection pools: shared by who goes the same way, replaced when what they trust changes."""

from __future__ import annotations

import contextlib
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import pytest

from agent.credentials.store import CredentialStore
from agent.engine.jobs import load_job
from agent.engine.services import Transports
from agent.errors import CredentialError, TransientError
from agent.network.transport import Call
from tests.certificate_helpers import profile as any_profile
from tests.network_helpers import Authority, Server, answering
from tests.test_credentials_files import as_nobody

if TYPE_CHECKING:
    from collections.abc import Iterator

    from agent.config.model import Profile


@pytest.fixture
def pools() -> Iterator[Transports]:
    with contextlib.closing(Transports()) as pools:
        yield pools


def profile(ca_file: Path | None = None, proxy: str | None = None) -> Profile:
    base = any_profile(certificate={"path": "/nonexistent.pem"})
    return base.model_copy(update={"ca_file": ca_file, "proxy": proxy})


def test_profiles_that_go_the_same_way_share_a_pool(pools: Transports, tmp_path: Path) -> None:
    """One pool for each trust root and proxy, however many profiles there are."""
    ca_file = Authority(tmp_path).ca_file
    ways = [profile(), profile(ca_file), profile(proxy="http://proxy:3128"), profile(ca_file, "http://proxy:3128")]
    found = [pools(way, "digest" if way.ca_file else None) for way in ways]
    assert len(set(map(id, found))) == 4
    assert [pools(way, "digest" if way.ca_file else None) for way in ways] == found


def test_a_changed_ca_file_is_trusted_from_then_on(pools: Transports, tmp_path: Path) -> None:
    """With another digest the CA file is read again; the pool that trusted the old one is closed, not kept."""
    old = Authority(tmp_path)
    with Server(answering(), old.server()) as server:
        first = pools(profile(old.ca_file), "old")
        assert first.request(Call(20), "GET", server.url, {}).status == 200
        new = Authority(tmp_path)  # the same file
        second = pools(profile(new.ca_file), "new")
        assert second is not first
        assert not any(first._idle.values())  # type: ignore[attr-defined]
        with pytest.raises(TransientError, match="does not show a trusted certificate"):
            second.request(Call(20), "GET", server.url, {})
    with Server(answering(), new.server()) as server:
        assert second.request(Call(20), "GET", server.url, {}).status == 200
    assert len(pools._pools) == 1


@pytest.mark.parametrize(
    "content", [b"", b"no certificate\n", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"]
)
def test_a_ca_file_without_certificates_is_refused(pools: Transports, tmp_path: Path, content: bytes) -> None:
    """A file that holds no certificate is named, with what it should be."""
    path = tmp_path / "ca.pem"
    path.write_bytes(content)
    with pytest.raises(CredentialError) as caught:
        pools(profile(path), "digest")
    assert caught.value.message == f"{path}: no usable trust root: it holds no certificate of an authority"
    assert "BEGIN CERTIFICATE" in caught.value.hint


def test_a_ca_file_that_cannot_be_read_is_refused(pools: Transports, tmp_path: Path) -> None:
    """A missing file and a directory are named; once it is there, it works."""
    path = tmp_path / "Test-CA.pem"
    with pytest.raises(CredentialError) as caught:
        pools(profile(path), None)
    assert caught.value.message == f"{path}: no usable trust root: does not exist"
    assert caught.value.missing
    with pytest.raises(CredentialError, match="no usable trust root"):
        pools(profile(tmp_path), None)
    Authority(tmp_path)
    assert pools(profile(path), None) is pools(profile(path), None)


def test_a_ca_file_of_others_is_no_matter_of_its_content(pools: Transports) -> None:
    """A CA file that may not be read, or is not there, is said to be that, when it is loaded and when it is used."""
    with TemporaryDirectory() as directory:
        Path(directory).chmod(0o755)
        path = Authority(Path(directory)).ca_file
        path.chmod(0)
        wanted = profile(path).model_copy(update={"client_secret_file": Path("/nonexistent")})
        with as_nobody(), pytest.raises(CredentialError) as caught:
            pools(wanted, None)
        with as_nobody():
            job = load_job(wanted, CredentialStore(), datetime.now(UTC))
    for error in (caught.value, job.unusable[0].error()):
        assert error.message == f"{path}: no usable trust root: permission denied"
        assert "with mode 0000" in error.hint
    gone = load_job(wanted, CredentialStore(), datetime.now(UTC)).unusable[0]
    assert gone.message == f"{path}: no usable trust root: does not exist"
    assert "BEGIN CERTIFICATE" not in gone.hint


def test_a_failed_change_leaves_the_old_pool(pools: Transports, tmp_path: Path) -> None:
    """A CA file that has become unusable is refused; what trusted its old content is not closed for it."""
    authority = Authority(tmp_path)
    with Server(answering(), authority.server()) as server:
        first = pools(profile(authority.ca_file), "old")
        authority.ca_file.write_bytes(b"")
        with pytest.raises(CredentialError):
            pools(profile(authority.ca_file), "new")
        assert pools(profile(authority.ca_file), "old") is first
        assert first.request(Call(20), "GET", server.url, {}).status == 200

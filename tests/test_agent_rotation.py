"""From one certificate to the next under the running agent, with a reader beside it that never meets a bad file."""

from __future__ import annotations

import json
import threading
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from tests.certificate_helpers import Pair, make_certificate, pool_key, written
from tests.process_helpers import Scene, current_certificate, run, scene, start
from tests.reader_helpers import Reader

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.process_helpers import Running

OFTEN = {"at": 0.05, "jitter": 0}
"""A token each second and a half; each would do for thirty."""


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Scene]:
    """A provider that knows one certificate."""
    with scene(tmp_path, token_lifetime=timedelta(seconds=30)) as made:
        yield made


def replace(stage: Scene, content: bytes) -> None:
    """Replace the certificate's file as a whole."""
    written(stage.directory / "new.pem", content).replace(stage.certificate)


def shown(stage: Scene) -> dict[str, Any]:
    """Return what the agent says of its profile."""
    document = json.loads((stage.directory / "run" / "status.json").read_text())
    profile: dict[str, Any] = document["profiles"][0]
    return profile


def thumbprints(agent: Running) -> list[str]:
    """Return with which certificates tokens were acquired."""
    return [event["thumbprint"] for event in agent.events() if event["event"] == "token.acquired"]


def test_registered_late(stage: Scene) -> None:
    """The old certificate serves until the provider knows the new one; a change on disk has it tried again at once."""
    old, new = stage.pair, current_certificate("new", 1)
    config = stage.config(stage.profile(refresh=OFTEN))
    token_file = stage.directory / "run" / "graph.token"
    with start("run", "--config", config) as agent:
        agent.wait_for("token.written")
        with Reader(token_file) as reader:
            replace(stage, new.pem)
            rejected = agent.wait_for("certificate.rejected", level="warning", thumbprint=new.thumbprint)
            assert "AADSTS700027" in rejected["message"]
            assert new.thumbprint in rejected["hint"]
            reader.wait_for(token_file, len(reader.contents[token_file]) + 2)
            credential = shown(stage)["credential"]
            assert credential["thumbprint"] == old.thumbprint
            assert "AADSTS700027" in credential["candidate_error"]
            assert {*thumbprints(agent)} == {old.thumbprint}
            stage.provider.register(certificate=new)
            replace(stage, new.cert_pem + new.key_pem)
            agent.wait_for("certificate.promoted", thumbprint=new.thumbprint, replaces=old.thumbprint)
            stage.provider.unregister()
            stage.provider.register(certificate=new)
            reader.wait_for(token_file, len(reader.contents[token_file]) + 2)
            assert shown(stage)["credential"]["candidate_error"] is None
        assert agent.stop() == 0
    assert reader.failures == []
    assert not [event for event in agent.events() if event["event"] == "acquisition.failed"]
    acquired = thumbprints(agent)
    assert acquired == sorted(acquired, key=[old.thumbprint, new.thumbprint].index)


def unusable(good: Pair) -> dict[str, bytes]:
    """Return what may be in a certificate's file and is none that could be used."""
    past = datetime.now(UTC) - timedelta(minutes=1)
    other = current_certificate("other", 1)
    return {
        "empty": b"",
        "half": good.pem[: len(good.pem) // 2],
        "of another key": good.key_pem + other.cert_pem,
        "expired": make_certificate("old", pool_key(1), not_before=past - timedelta(1), not_after=past).pem,
        "not valid yet": make_certificate("early", pool_key(1), not_before=datetime.now(UTC) + timedelta(1)).pem,
    }


def test_what_cannot_be_used_is_not_used(stage: Scene) -> None:
    """Whatever wrong thing lies in the certificate's place, the one before serves on, and one warning says why."""
    config = stage.config(stage.profile(refresh=OFTEN))
    token_file = stage.directory / "run" / "graph.token"
    with start("run", "--config", config) as agent, Reader(token_file, in_time=False) as reader:
        reader.wait_for(token_file, 1)
        reader.failures.clear()  # of the time before
        wrong = unusable(stage.pair)
        for number, content in enumerate(wrong.values()):
            replace(stage, content)
            rejected = agent.wait_for("certificate.rejected")
            assert (rejected["level"], rejected["path"]) == ("warning", str(stage.certificate))
            agent.wait_for("config.loaded")
            assert stage.certificate.name in shown_error(stage, agent)
            replace(stage, stage.pair.pem + b"\n" * number)
            agent.wait_for("config.loaded")
        reader.wait_for(token_file, len(reader.contents[token_file]) + 2)
        assert agent.stop() == 0
    assert reader.failures == []
    events = [event["event"] for event in agent.events()]
    assert events.count("certificate.rejected") == len(wrong)
    assert not {"acquisition.failed", "certificate.promoted"} & {*events}
    assert {*thumbprints(agent)} == {stage.pair.thumbprint}


def shown_error(stage: Scene, agent: Running) -> str:
    """Return why the candidate is not used, after the next token: by then the status is written."""
    agent.wait_for("token.written")
    error: str = shown(stage)["credential"]["candidate_error"]
    return error


def test_copied_slowly(stage: Scene) -> None:
    """A file that is written in chunks 0.4 s apart is used when it is whole; before, there is one warning at most."""
    new = current_certificate("new", 1)
    stage.provider.register(certificate=new)
    config = stage.config(stage.profile(refresh=OFTEN))
    token_file = stage.directory / "run" / "graph.token"
    with start("run", "--config", config) as agent:
        agent.wait_for("token.written")
        with Reader(token_file) as reader:
            step = len(new.pem) // 5
            with stage.certificate.open("wb", buffering=0) as file:
                for begin in range(0, len(new.pem), step):
                    file.write(new.pem[begin : begin + step])
                    threading.Event().wait(0.4)
            agent.wait_for("certificate.promoted", thumbprint=new.thumbprint)
            agent.wait_for("token.written")
        assert agent.stop() == 0
    assert reader.failures == []
    events = agent.events()
    levels = [event["level"] for event in events if event["event"] == "certificate.rejected"]
    assert levels in ([], ["warning"])
    assert not [event for event in events if event["event"] == "acquisition.failed"]


def test_restarted_with_the_refused_one_alone(stage: Scene) -> None:
    """After a restart that finds only a certificate nobody knows, the token on disk serves on, and the reason shows."""
    new = current_certificate("new", 1)
    config = stage.config(stage.profile(refresh=OFTEN))
    token_file = stage.directory / "run" / "graph.token"
    with start("run", "--config", config) as agent:
        agent.wait_for("token.written")
        assert agent.stop() == 0
    token = stage.token()
    replace(stage, new.pem)
    with Reader(token_file) as reader, start("run", "--config", config) as agent:
        failed = agent.wait_for("acquisition.failed")
        assert (failed["kind"], failed["code"]) == ("rejected", "AADSTS700027")
        assert failed["runway_seconds"] > 0
        assert stage.token() == token
        stage.provider.register(certificate=new)
        assert run("refresh", "graph", "--config", config).returncode == 0
        agent.wait_for("token.written")
        assert stage.token() != token
        assert agent.stop() == 0
    assert reader.failures == []

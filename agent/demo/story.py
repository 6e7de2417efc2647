"""The story: tokens appear, are renewed ahead of time, and outlive an outage, new certificates and a kill -9."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from agent import status
from agent.demo.stage import LIFETIME, PROFILES, StoryError, configuration_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from agent.demo.stage import Stage
    from agent.demo.view import View

TICK = 0.1
"""Seconds between two looks at what the agent says."""
PATIENCE = 15.0
"""Seconds to wait for something that must happen."""
OUTAGE = (1.0, 1.9)
"""Seconds before the first renewal that the outage begins, and after it that it ends. The back-off allows a retry
within 2 s and the next within 6 s: the second always succeeds before the old token's end."""
GLANCE = 0.5
"""Seconds to look at something before it changes."""
ABSENCE = 1.5
"""Seconds without an agent after it was killed."""


class Story:
    """Plays the acts in order; each waits for what the agent really does."""

    def __init__(self, stage: Stage, view: View) -> None:
        self._stage, self._view = stage, view
        self._told = 0

    def play(self, seconds: float) -> None:
        """Play everything in about so many seconds (at least what the acts need).

        Raises:
            StoryError: the agent did not do what it promises.
        """
        ends_at = time.monotonic() + seconds
        self._view.title(
            "token-agent: a program reads a token from a file, and the token is always fresh",
            "All of it is real but the provider, which is emulated here. Ctrl-C ends it.",
        )
        with self._view.live():
            self._first_tokens()
            self._outage()
            self._rotation()
            self._crash()
            self._until(lambda: time.monotonic() >= ends_at, "the end", patience=seconds + PATIENCE)
        self._end()

    def _first_tokens(self) -> None:
        self._view.act("1. Three applications get their tokens")
        url = self._stage.start_provider()
        self._view.line(f"provider at {url}; tokens live {LIFETIME} s, not an hour")
        self._stage.write_configuration()
        self._view.line("an application is five lines of configuration:")
        self._view.quote(configuration_of("graph"))
        self._stage.start_agent()
        self._view.reader = self._stage.start_reader("graph")
        self._until(lambda: self._count("token.written") >= len(PROFILES), "first tokens")
        self._view.line("your program reads graph.token hundreds of times a second")
        self._until(self._knows_its_tokens, "a status with the tokens")

    def _outage(self) -> None:
        """Break the provider just before the next renewal, and mend it before the token ends."""
        before, after = OUTAGE
        first = min(filter(None, (status.parse_rfc3339(entry["refresh_at"]) for entry in self._profiles())))
        self._until(lambda: (first - datetime.now(UTC)).total_seconds() <= before, "the next renewal")
        self._view.act("2. The provider fails, just when the tokens are due")
        self._stage.break_down()
        self._view.outage = True
        self._view.line("the provider answers everything with 503 Service Unavailable", "bad")
        self._until(lambda: (datetime.now(UTC) - first).total_seconds() >= after, "the end of the outage")
        if not self._count("acquisition.failed"):
            raise StoryError("the outage went unnoticed by the agent itself")
        written = self._count("token.written")
        self._stage.recover()
        self._view.outage = False
        self._view.line("the provider is back")
        self._until(lambda: self._count("token.written") >= written + len(PROFILES), "renewal after the outage")
        self._view.line("all renewed before the old tokens ended: your program noticed nothing", "good")

    def _rotation(self) -> None:
        """Replace certificates under the running agent: one that is registered, and one that is not yet."""
        self._view.act("3. Certificates are replaced while the agent runs")
        self._stage.make_certificate("graph-2", "graph 2")
        self._stage.register("graph", "graph-2")
        self._stage.replace_certificate("graph", "graph-2")
        self._view.line("graph    a new certificate is registered, and put in place of graph.pem")
        self._until(lambda: self._count("certificate.promoted", "graph") > 0, "the new certificate")
        self._until(lambda: self._loaded("graph", "graph-2"), "a token by the new certificate")
        self._stage.make_certificate("billing-2", "billing 2")
        self._stage.replace_certificate("billing", "billing-2")
        self._view.line("billing  a new billing.pem, but somebody forgot to register it", "bad")
        self._until(lambda: self._count("certificate.rejected", "billing") > 0, "the refusal")
        self._view.line("billing  the old certificate goes on being used, and the status says so", "good")
        self._pause(GLANCE)
        self._stage.register("billing", "billing-2")
        self._view.line("billing  now somebody registers it")
        self._pause(GLANCE)

    def _loaded(self, name: str, file: str) -> bool:
        """Tell whether a profile's certificate in use is the one that was made as this file."""
        from agent.emulator.admin import certificate  # noqa: PLC0415 - cryptography, only when the curtain rises

        wanted = certificate(str(self._stage.directory / f"{file}.cer")).thumbprint
        return any(e["name"] == name and (e["credential"] or {}).get("thumbprint") == wanted for e in self._profiles())

    def _crash(self) -> None:
        """Kill the agent and start it again: the tokens on disk serve, before and after."""
        self._view.act("4. kill -9")
        self._stage.kill_agent()
        self._view.line("the agent is gone; the files are there, and your program reads on", "bad")
        self._pause(ABSENCE)
        acquired = self._count("token.acquired")
        self._stage.start_agent()
        self._until(self._knows_its_tokens, "a status of the second agent with the tokens")
        if self._count("token.acquired") == acquired:
            self._view.line("it goes on with the tokens on disk, without asking for new ones", "good")

    def _end(self) -> None:
        """Stop the agent and draw the balance."""
        document = self._stage.status()
        took = self._stage.stop_agent()
        reader = self._view.reader
        if document is None or reader is None:
            raise StoryError("the agent left no status")
        self._view.act("5. The end")
        self._view.line(f"SIGTERM: the agent ended within {took * 1000:.0f} ms; the token files stay")
        self._view.final(document)
        failures, written = self._count("acquisition.failed"), self._count("token.written")
        survived = "1 outage, 2 new certificates, 1 kill -9"
        self._view.line(f"{written} tokens; {failures} failed attempts, {survived}")
        count = f"{reader.bad} torn, missing or expired; {len(reader.seen)} tokens"
        self._view.line(f"{reader.reads:,} reads by your program: {count}", "bad" if reader.bad else "good")
        if reader.bad:
            raise StoryError("a reader met a bad token")
        self._view.act("Next: token-agent cert new --help, then token-agent check --help")

    def _knows_its_tokens(self) -> bool:
        """Tell whether the status is that of the running agent, and all profiles have a token."""
        document, agent = self._stage.status(), self._stage.agent
        if document is None or agent is None or document["agent"]["pid"] != agent.pid:
            return False
        return len(document["profiles"]) == len(PROFILES) and all(e["acquired_at"] for e in document["profiles"])

    def _profiles(self) -> list[dict[str, Any]]:
        document = self._stage.status()
        return document["profiles"] if document else []

    def _count(self, event: str, profile: str | None = None) -> int:
        events = list(self._stage.events)
        return sum(e.get("event") == event and profile in (None, e.get("profile")) for e in events)

    def _until(self, happened: Callable[[], bool], what: str, patience: float = PATIENCE) -> None:
        """Tell what the agent does until something has happened."""
        deadline = time.monotonic() + patience
        while not happened():
            if time.monotonic() > deadline:
                raise StoryError(f"waited {patience:.0f} s in vain for: {what}")
            if self._stage.agent and not self._stage.is_running:
                raise StoryError(f"the agent ended with exit code {self._stage.agent.returncode}")
            self._pause(TICK)

    def _pause(self, seconds: float) -> None:
        """Let time pass, and tell what happens meanwhile."""
        ends_at = time.monotonic() + seconds
        while (left := ends_at - time.monotonic()) > 0:
            time.sleep(min(left, TICK))
            self._tell_events()
            self._view.tick()

    def _tell_events(self) -> None:
        """Tell what the agent logged since the last time."""
        events = list(self._stage.events)
        for event in events[self._told :]:
            if sentence := _sentence(event):
                self._view.line(*sentence)
        self._told = len(events)


def _sentence(event: dict[str, Any]) -> tuple[str, str] | None:
    """Return an event as a person would say it, and in which style; None where there is nothing to say."""
    who, certificate = f"{event.get('profile', ''):8}", str(event.get("thumbprint"))[:16]
    message = str(event.get("message", ""))
    sentence = None
    match event.get("event"):
        case "agent.started":
            sentence = f"token-agent runs and keeps {event['profiles']} profiles fresh", "plain"
        case "token.written":
            sentence = f"{who} new token {event['token_sha256']} in place", "good"
        case "acquisition.failed":
            what, runway = event.get("code") or event["kind"], event["runway_seconds"]
            sentence = f"{who} no new token: {what}; the one on disk serves {runway} s more", "bad"
        case "certificate.promoted":
            sentence = f"{who} certificate {certificate}... accepted, in use from now on", "good"
        case "certificate.rejected":
            sentence = f"{who} certificate {certificate}... refused: {message.partition(':')[0]}", "bad"
        case "config.rejected" | "token.expired" as name:
            sentence = f"{who} {name}: {message}", "bad"
    return sentence

"""What is expected of one profile: the exact rule by which its token must have been renewed.

A profile whose token is due must have a new one within `REACTION` seconds after the latest of these:

- the token fell due (its observed lifetime times ``at``, or ``refresh_in``);
- the last thing that stood in the way was gone, plus what the contract gives the agent to notice (`NOTICE`);
- the rest is over that the provider's last answer entitles the agent to: back-off of at most 60 s, five minutes after
  a rejection, Retry-After up to an hour.

From the rule follows the promise to readers: whenever the provider was able to answer once within the last half of a
token's life, and the rests it asked for are over before the end, the token never expires.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tests.simulation.providers import REJECTED, claims_of

if TYPE_CHECKING:
    from collections.abc import Set as AbstractSet
    from pathlib import Path

    from tests.simulation.plans import Plan, Wallet
    from tests.simulation.providers import Answered, Identity, Issued

REACTION = 20.0
"""Seconds for one attempt: requests that take up to 4 s each, a refused candidate before the good one, slow disks."""
NOTICE = {
    "down": 10.0,  # a start
    "disk": 61.0,  # a file that could not be written is tried again with back-off
    "clock": 31.0,  # steps and suspends are noticed once in 30 s
    "credential": 13.0,  # found by the watch or the rescan, or looked at again after 10 s
    "configuration": 13.0,
    "provider": 0.0,  # the rests it asked for are counted by themselves
}
TWINS = "twins"
"""The directory of second token files."""
EARLY = 0.02
"""Seconds by which rounding may let something come too early."""
MIN_INTERVAL = 1.0
PUBLISHED_WITHIN = 8.0
DELETED_WITHIN = 35.0
"""Seconds: one attempt may be under way when a token ends."""


@dataclass
class Case:
    """One profile and how it stands.

    Attributes:
        plan: as the configuration in force has it.
        wallet: its certificates.
        path: the token file.
        former: identities whose token the file may hold until the first one of the present identity.
        token: what is in the file; None where there is no sound token of this profile.
        newest: the highest number of a token that was in it.
        touched: since when the file is not as the agent left it.
        absent: whether the file may be absent.
        acquired: the newest token that the agent said it acquired, and when.
        rest: until when the agent may rest; ``base``: the same after what stood in the way.
        told_until: the same where the provider works, and told it to wait.
        blocked: what stands in the way.
        asked: when the agent last began to ask, by boot time.
        not_before: by its mark, when a refused certificate may be tried again; "" for a throttle.
        free_until: until then it may ask, whatever was said before: something changed, or somebody wants to know.
        spares: how often it may ask though its token is not due.
        hurried: that is left over from several wishes at once, and soon in vain.
        failed: its last attempt failed.
        best: the newest token that was in the file.
        former_formats: formats the file may still have.
        contents: what was in the file before, and is in it now; ``written_at`` when that was written.
        digest: the SHA-256 (hex) of the token in it.
        twin_newest: the highest number of a token that was in the second file, if there is one.
        twin_number: that of the token in it now; ``twin_at`` when it changed.
        slip: by how much the agent may think its token younger, since the clock was set while no agent ran.
        unseen: how far it was set back meanwhile since the last token.
        vague: for the same reason its times need not be right until the next token.
        put_off_at: when the agent last said that it tries a certificate later.
        stranger: a token of its own that the agent found at its start, and does not know.
        wished_at: when somebody last asked for a new token, which is not there yet.
    """

    plan: Plan
    wallet: Wallet
    path: Path
    base: float
    former: set[Identity] = field(default_factory=set)
    token: Issued | None = None
    newest: int = 0
    touched: float | None = None
    absent: bool = True
    acquired: tuple[Issued, float] | None = None
    rest: float = 0.0
    told_until: float = 0.0
    blocked: AbstractSet[str] = frozenset({"down"})
    asked: float = float("-inf")
    not_before: dict[str, float] = field(default_factory=dict)
    free_until: float = 0.0
    spares: int = 1
    hurried: bool = False
    failed: bool = False
    best: Issued | None = None
    former_formats: set[str] = field(default_factory=set)
    contents: tuple[str, str] = ("", "")
    digest: str = ""
    written_at: float = 0.0
    twin_newest: int = 0
    twin_number: int = 0
    twin_at: float = 0.0
    slip: float = 0.0
    unseen: float = 0.0
    vague: bool = False
    put_off_at: float = float("-inf")
    stranger: Issued | None = None
    wished_at: float = float("-inf")

    @property
    def twin(self) -> Path:
        """The second token file, where the plan has one."""
        return self.path.parent / TWINS / self.path.name

    @property
    def paths(self) -> tuple[Path, ...]:
        """All its token files."""
        return (self.path, self.twin) if self.plan.twin else (self.path,)

    @property
    def everywhere(self) -> bool:
        """Whether all its files have the same token."""
        return self.token is not None and (not self.plan.twin or self.twin_number == self.token.number)

    @property
    def sure(self) -> bool:
        """Whether the agent must know all of the token on disk."""
        known = self.token is not None and self.token.identity == self.plan.identity
        return known and not self.vague and self.touched is None

    def due(self) -> float:
        """Return when the token on disk is to be renewed."""
        due = self._renewal(self.token)
        return self.wished_at if self.token and due > self.wished_at > self.token.at else due

    def earliest(self) -> float:
        """Return when it may be renewed at the earliest; one that could not be written yet counts."""
        waits = self.acquired and self.acquired[0].number > self.newest
        token = self.acquired[0] if self.acquired and waits else self.token
        return self._renewal(token)

    def _renewal(self, token: Issued | None) -> float:
        if token is None or token.identity != self.plan.identity:
            return float("-inf")
        wish = token.refresh_in if token.refresh_in is not None else float("inf")
        return token.at + max(MIN_INTERVAL, min(token.lifetime * self.plan.share, wish))

    def wish(self, now: float) -> None:
        """Somebody asks for a new token; one that could not be written yet is new enough."""
        pending = self.acquired is not None and self.acquired[0].number > self.newest
        if not pending and (self.everywhere or self.token is None):
            self.wished_at = now
            self.rest = min(self.rest, now)

    def unpublished(self, then: float) -> bool:
        """Whether a token was acquired that ought to be on disk by a time, and is not."""
        token, since = self.acquired or (None, 0.0)
        pending = token is not None and token.number > self.newest and self.base < since
        return pending and then > since + PUBLISHED_WITHIN

    def outlived(self, then: float) -> bool:
        """Whether its file ought to be gone by a time, since its token is over."""
        token = self.token
        if token is None or self.plan.on_expiry != "delete" or not self.sure:
            return False
        able = not self.blocked & {"down", "disk", "clock"}
        return able and then > max(token.ends + self.slip, self.base) + DELETED_WITHIN

    def deadline(self) -> float:
        """Return until when there must be a token that is not due."""
        return max(self.due() + self.slip, self.base, self.rest) + REACTION

    def block(self, reasons: AbstractSet[str], now: float, later: float) -> None:
        """Note what stands in the way from now on; what lies on disk may be noticed ``later`` only."""
        gone = self.blocked - reasons
        late = {"credential": later, "configuration": later}
        self.base = max([self.base, *(now + NOTICE[reason] + late.get(reason, 0.0) for reason in gone)])
        self.blocked = reasons

    def failed_at(self, answer: Answered, *, sooner: float = 0.0) -> None:
        """Note an answer without a token, and the rest it entitles to, if not to so many seconds less."""
        self.failed = True
        if not answer.outage and (answer.passing or answer.status in (429, 408)):
            self.told_until = max(self.told_until, answer.at + answer.rest)
        if answer.outage or answer.status in (429, 408):
            self.rest = max(self.rest, answer.at + answer.rest - sooner)
            if not answer.outage and not answer.aborted:
                self.not_before[""] = answer.at + max(MIN_INTERVAL, min(answer.wish or 0.0, 3600.0))
            return
        if answer.passing or answer.useless:
            self.rest = max(self.rest, answer.at + answer.rest)
            return
        others = self.wallet.others_than(answer.mark)
        put_off = answer.at - self.put_off_at < REJECTED * 1.1 and not self.wallet.lies_on_disk(answer.mark)
        if not others or put_off:
            self.rest = max(self.rest, answer.at + answer.rest)
        candidate = others or len(self.wallet.known) > 1 or self.wallet.is_candidate(answer.mark)
        self.not_before[answer.mark or "?"] = answer.at + (30.0 if candidate else 270.0)


def text_of(content: str, case: Case) -> str | None:
    """Return the token in a whole file of the profile's format; None if it is anything else."""
    for fmt in (case.plan.fmt, *case.former_formats):
        text = _text_in(content, fmt)
        if text is not None and text.count(".") == 2:
            return text
    return None


def _text_in(content: str, fmt: str) -> str | None:
    match fmt:
        case "raw" if content.startswith("ey") and content.isprintable():
            return content
        case "header" if content.startswith("Authorization: Bearer ") and content.endswith("\n"):
            return content[22:-1]
        case "env" if content.startswith("ACCESS_TOKEN=") and content.endswith("\n"):
            return content[13:-1]
        case "json":
            try:
                return str(json.loads(content)["access_token"])
            except (ValueError, KeyError, TypeError):
                return None
    return None


def belongs(text: str, identity: Identity, tenant_id: str) -> bool:
    """Whether the claims of a token are those of an identity."""
    claims = claims_of(text)
    return (claims["aud"], claims["appid"], claims["tid"]) == (identity.scope, identity.client_id, tenant_id)

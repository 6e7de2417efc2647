"""The files of the simulated machine: configuration, certificates, hooks; and what others do to token files."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

from tests.simulation import plans
from tests.simulation.cases import NOTICE, TWINS, Case
from tests.simulation.machine import BrokenError
from tests.simulation.plans import Plan, Wallet, mark

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from tests.certificate_helpers import Pair
    from tests.simulation.play import Play

AFTER = '#!/bin/sh\n[ -e "{0}/hook-fails" ] && exit 3\ncp "$1" "{0}/told-$TOKEN_AGENT_PROFILE"\n'
BREAKAGES = {
    "syntax": "[profile\n",
    "unknown key": "colour = 1\n",
    "duplicate": '[[profile]]\nname = "p0"\n[[profile]]\nname = "p0"\n',
}
"""What makes a whole configuration unusable when it stands at its end."""
NEVER = "api://never"
"""What nobody ever wants a token for."""
LEFTOVER = ".{}.0123456789abcdef.tmp"


class Files:
    """What lies on the machine, and what is expected of it."""

    def __init__(self, directory: Path, play: Play) -> None:
        self.directory, self._play = directory, play
        self.broken = ""
        self.edited_until = 0.0
        self.left: dict[Path, bool | None] = {}
        self._goes_with_stop: dict[Path, float] = {}
        self._serial = 0
        (directory / "bin").mkdir()
        self._put("bin/after", AFTER.format(directory).encode(), 0o755)

    def _put(self, name: str, content: bytes, mode: int = 0o600) -> None:
        """Write a file as an operator does: whole, over the old one."""
        path = self.directory / name
        temporary = path.with_name(f"{path.name}.new")
        temporary.write_bytes(content)
        temporary.chmod(mode)
        temporary.replace(path)

    @property
    def notice(self) -> float:
        """Seconds in which a change on disk has to be found."""
        deaf = self._play.machine.notices.deaf
        return NOTICE["configuration"] + (self._play.watchman.rescan if deaf else 0.0)

    # ---- configuration

    def add_profile(self, number: int) -> None:
        """Add a profile with its certificate to what is wanted."""
        plan = plans.draw(self._play.random, number, len(self._play.sites))
        case = Case(
            plan, Wallet(self.new_pair()), self.directory / "run" / f"{plan.name}.token", self.now + self.notice
        )
        self._play.watchman.added(case)
        self.register(case)
        self.write_pair(case)

    @property
    def now(self) -> float:
        return self._play.time.true

    def _write_plans(self, wanted: Iterable[Plan], end: str = "") -> None:
        scenario = self._play.scenario
        text = f'[agent]\nruntime_dir = "run"\nstate_dir = "state"\nrescan_interval = "{scenario.rescan}s"\n'
        for plan in wanted:
            text += plan.text(self._play.sites[plan.identity.site], self.directory)
        self._put("config.toml", (text + end).encode())

    def write_configuration(self) -> None:
        """Write down what is wanted."""
        self._write_plans(case.plan for case in self._play.watchman.cases.values())
        self.edited_until = self.now + self.notice
        self._play.watchman.settling_until = self.edited_until

    def remove_profile(self, case: Case) -> None:
        """Take a profile out of what is wanted; its file is dealt with, unless that is not sure."""
        del self._play.watchman.cases[case.plan.name]
        self._play.watchman.leaves(case.plan.identity, self.now + self.notice)
        sure = self.now > self.edited_until and self.now > case.base and not case.former and case.token is not None
        for path in case.paths:
            self.left[path] = (case.plan.on_removal == "delete") if sure else None
            if case.plan.on_stop == "delete":
                self._goes_with_stop[path] = self.now + self.notice

    def change_profile(self, case: Case) -> None:
        """Change a key of a profile."""
        before = case.plan
        case.plan = plans.changed(self._play.random, before)
        if case.plan.identity != before.identity:
            case.former.add(before.identity)
            self._play.watchman.leaves(before.identity, self.now + self.notice)
            case.acquired = None
            case.wallet.known = [each for each in case.wallet.known if case.wallet.lies_on_disk(mark(each))]
        if case.plan.fmt != before.fmt:
            case.former_formats.add(before.fmt)
            case.vague = case.vague or not self._play.machine.running  # it will not find its token in another format
        case.base = max(case.base, self.now + self.notice)
        self._play.watchman.may_ask(case, int(case.plan.identity != before.identity))

    def break_configuration(self, how: str) -> None:
        """Leave a configuration that cannot be used; all in it that could be is another one than before."""
        self.broken = how
        self._play.watchman.refused = True
        self._play.watchman.settling_until = self.now + self.notice
        if how == "gone":
            (self.directory / "config.toml").unlink()
        else:
            wanted = [case.plan for case in self._play.watchman.cases.values()]
            others = [replace(plan, identity=replace(plan.identity, scope=NEVER)) for plan in wanted]
            self._write_plans(others[1:] or others, BREAKAGES[how])

    def mend_configuration(self) -> None:
        """Bring a good one back."""
        if self.broken:
            self.broken, self._play.watchman.refused = "", False
            for case in self._play.watchman.cases.values():
                self._play.watchman.may_ask(case)  # what else has changed is found now, too
            self.write_configuration()

    # ---- certificates

    def new_pair(self, *, ended: bool = False) -> Pair:
        """Return a new certificate."""
        self._serial += 1
        age = timedelta(seconds=self.now)
        ends = age - timedelta(hours=1) if ended else age + timedelta(days=900)
        return plans.new_pair(self._serial, age, ends=ends)

    def register(self, case: Case, pair: Pair | None = None) -> None:
        """Upload a certificate; those that nobody uses any more are removed."""
        wallet, identity = case.wallet, case.plan.identity
        pair = pair or wallet.pair
        registry = self._play.sites[identity.site].handle
        wallet.registered.add(mark(pair))
        registry.register(identity.client_id, pair)
        needed = {mark(each) for each in (wallet.pair, pair, *wallet.known)}
        app = registry.provider.registry.app(identity.client_id, registry.provider.registry.tenants[0])
        assert app
        app.certificates = [each for each in app.certificates if each.x5t_s256 in needed]
        wallet.registered &= needed

    def write_pair(self, case: Case, pair: Pair | None = None, *, key: Pair | None = None) -> None:
        """Put a certificate in place; of a split pair the key comes first, and may be another one's."""
        plan, pair = case.plan, pair or case.wallet.pair
        if plan.split:
            self._put(f"{plan.name}.key", (key or pair).key_pem)
            self._put(f"{plan.name}.crt", pair.cert_pem)
        else:
            self._put(f"{plan.name}.pem", pair.pem)

    def certificate_path(self, plan: Plan) -> Path:
        return self.directory / f"{plan.name}.{'crt' if plan.split else 'pem'}"

    # ---- around a start and a stop

    def adopt(self) -> None:
        """A new process finds the disk as it is: an altered file is no token of its own."""
        for case in self._play.watchman.cases.values():
            case.spares, case.hurried = max(1, case.spares), False
            if case.touched is not None and case.token is not case.best:
                case.stranger, case.token, case.touched = case.token, None, None
                case.former = case.former | {case.plan.identity}
                case.newest, case.absent = 0, True

    def before_stop(self) -> None:
        """With on_stop = "delete" the files go."""
        for case in self._play.watchman.cases.values():
            case.absent = case.absent or case.plan.on_stop == "delete"
        for path, until in self._goes_with_stop.items():
            if self.now < until:  # the agent may not know yet that the profile is no longer wanted
                self.left[path] = None

    def after_stop(self) -> None:
        """See that they have gone."""
        if self.broken or self.now < self.edited_until or self._play.machine.run_disk.fault:
            return
        for case in self._play.watchman.cases.values():
            goes = case.plan.on_stop == "delete" and case.plan.name not in self._play.watchman.undeleted
            if goes and any(path.exists() for path in case.paths):
                raise BrokenError(f"{case.plan.name}'s file should be gone after the stop")

    def leave_half_a_file(self) -> None:
        """Leave what a process leaves that is killed between making a temporary file and giving it its name."""
        for case in list(self._play.watchman.cases.values())[:2]:
            with contextlib.suppress(OSError):
                (case.path.parent / LEFTOVER.format(case.path.name)).write_bytes(b"ey")

    def meddle(self, how: str) -> None:
        """Do something to a token file while no agent runs."""
        for case in list(self._play.watchman.cases.values())[:1]:
            self.tamper(case, "alter" if how == "old" and case.vague else how)  # it may know just the old one

    def leftovers(self) -> list[str]:
        """Return temporary files in the agent's directories."""
        run, state = self._play.machine.run_disk.path, self._play.machine.state_disk.path
        places = (run, run / TWINS, state)
        return [path.name for place in places for path in place.glob(".*.tmp")]

    # ---- what others do

    def tamper(self, case: Case, how: str) -> None:
        """Do something to a token file that nobody but the agent should."""
        fault = self._play.machine.run_disk.fault
        if not case.path.exists() or (fault and (fault, how) != ("full", "delete")):
            return
        watchman = self._play.watchman
        case.touched = self.now if case.touched is None else case.touched
        case.base = max(case.base, self.now) if how == "chmod" else case.base
        match how:
            case "delete":
                case.path.unlink()
            case "alter":
                case.path.write_text("altered")
            case "truncate":
                case.path.write_bytes(b"")
            case "chmod":
                case.path.chmod(0o644)
            case "replace":
                other = case.path.with_name("other")
                other.write_text("replaced")
                other.replace(case.path)
            case "old":
                case.path.write_text(case.contents[0])
        watchman.look(case, by_agent=False)
        if how != "chmod":
            case.spares, case.hurried = max(1, case.spares), False

    def fail_hooks(self, *, fail: bool) -> None:
        """Let hooks fail, or not."""
        path = self.directory / "hook-fails"
        self._play.watchman.hooked.changed_at = float("inf") if fail else self.now
        if fail:
            path.touch()
        else:
            path.unlink(missing_ok=True)

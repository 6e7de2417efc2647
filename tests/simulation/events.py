"""What each kind of event does to the machine and its providers."""

from __future__ import annotations

import email.utils
import signal
from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.simulation.cases import Case
    from tests.simulation.play import Play
    from tests.simulation.providers import Site
    from tests.simulation.scenario import Event


def happen(play: Play, event: Event) -> None:
    """Let an event happen."""
    play.counts[f"event {event.kind}"] += 1
    _DOERS[event.kind](play, event)


def _case(play: Play, event: Event) -> Case | None:
    cases = list(play.watchman.cases.values())
    return cases[event.details["who"] % len(cases)] if cases else None


def _site(play: Play, event: Event) -> Site:
    who: int = event.details["who"]
    return play.sites[who % len(play.sites)]


# ---- providers


def _fault(play: Play, event: Event) -> None:
    """Add a fault to a provider's script, for a number of requests or for a time."""
    site, details = _site(play, event), event.details
    known = ("status", "retry_after", "endpoint", "seconds", "code")
    fault: dict[str, Any] = {name: details[name] for name in known if details.get(name) is not None}
    if "retry_after" in fault:
        fault["retry_after"] = _wish(play, fault["retry_after"])
    if details.get("client") and (case := _case(play, event)):
        site, fault["client_id"] = play.sites[case.plan.identity.site], case.plan.identity.client_id
    if "share" in details:
        fault["seconds"] = round(details["share"] * site.lifetime)
    kind, count = details["fault"], details.get("count")
    play.counts[f"fault {kind}"] += 1
    before = set(map(id, site.handle.provider.script.steps))
    site.handle.fault(kind, count, **fault)
    added = [step for step in site.handle.provider.script.steps if id(step) not in before]
    if event.lasting:
        play.later(event.lasting, f"end of {event.kind} ({kind})", partial(_end_fault, site, added))
        if event.details["who"] % 4 == 0:  # somebody sees that it is over, and does not want to wait
            play.later(
                event.lasting + 2.0, "", partial(_refresh, play, replace(event, details={**details, "again": 0}))
            )


def _end_fault(site: Site, added: list[Any]) -> None:
    script = site.handle.provider.script
    left = [step for step in script.steps if all(step is not each for each in added)]
    script.clear()
    script.add(*left)


def _wish(play: Play, wish: int | str) -> int | str:
    """Return what stands in Retry-After: words for dates become HTTP-dates by the provider's clock."""
    if not isinstance(wish, str) or not (wish in ("past", "far") or wish.startswith("+")):
        return wish
    seconds = {"past": -3600, "far": 10**9}.get(wish) or int(wish)
    return email.utils.format_datetime(play.time.now() + timedelta(seconds=seconds), usegmt=True)


def _drought(play: Play, event: Event) -> None:
    """Let the last token before an outage be one that soon ends."""
    if not (case := _case(play, event)):
        return
    site, client_id = play.sites[case.plan.identity.site], case.plan.identity.client_id
    site.handle.fault("stale", 1, client_id=client_id, seconds=round(site.lifetime - event.details["rest"]))
    refresh(play, case)
    outage = replace(event, details={**event.details, "fault": "drop", "client": True})
    play.later(5.0, f"{case.plan.name} is cut off", partial(_fault, play, outage))


def _foreign(play: Play, event: Event) -> None:
    """Let a provider issue tokens for something else than what a profile asks for, and expects."""
    if (case := _case(play, event)) and case.plan.expect:
        identity = case.plan.identity
        foreign = play.sites[identity.site].foreign
        foreign.add(identity)
        play.later(event.lasting, f"end of foreign tokens for {identity}", partial(foreign.discard, identity))


def _lifetime(play: Play, event: Event) -> None:
    site = _site(play, event)
    usual = timedelta(seconds=play.scenario.sites[site.number])

    def over() -> None:
        site.handle.settings(token_lifetime=usual.total_seconds(), refresh_in=None)

    site.handle.settings(token_lifetime=event.details["lifetime"], refresh_in=event.details["refresh_in"])
    play.later(event.lasting, "usual lifetimes", over)


# ---- certificates and configuration


def _rotation(play: Play, event: Event) -> None:
    """Put a new certificate in place, well or badly; what is bad is mended in the end."""
    case, files, how = _case(play, event), play.files, event.details["how"]
    if case is None or not case.wallet.sound or not case.wallet.usable_on_disk or files.now < files.edited_until:
        return
    play.counts[f"rotation {how}"] += 1
    play.watchman.may_ask(case)
    play.watchman.settling_until = max(play.watchman.settling_until, files.now + files.notice)
    new = files.new_pair()
    if case.plan.name not in play.watchman.loaded:
        case.wallet.known = []  # it may never see the one before
    if how == "mismatched" and new.key is case.wallet.pair.key:
        new = files.new_pair()
    if how in ("good", "late"):
        case.wallet.pair = new
        if how == "good":
            files.register(case)
        files.write_pair(case)
        if how == "late":
            again = replace(event, details={**event.details, "again": 0})
            play.later(event.lasting / 2, "", partial(_refresh, play, again))  # with what worked so far
            play.later(event.lasting, f"{case.plan.name}'s certificate is registered", partial(files.register, case))
        return
    case.wallet.sound = False
    _break(play, case, how, new)

    def mend() -> None:
        case.wallet.pair, case.wallet.sound = new, True
        if not case.wallet.known and play.machine.running:
            case.wallet.known = [new]  # it is loaded, and serves as what worked last until it has
        if case.plan.name in play.watchman.cases:
            files.register(case)
            files.write_pair(case)
            play.watchman.may_ask(case)
            play.watchman.settling_until = max(play.watchman.settling_until, files.now + files.notice)

    play.later(event.lasting, f"{case.plan.name}'s certificate is mended", mend)


def _break(play: Play, case: Case, how: str, new: Any) -> None:
    files, path = play.files, play.files.certificate_path(case.plan)
    if how == "expired":
        files.write_pair(case, files.new_pair(ended=True))
    elif how == "mismatched" and case.plan.split:
        files.write_pair(case, new, key=case.wallet.pair)
    elif how == "gone":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:700])


def _edit(play: Play, event: Event) -> None:
    """Edit the configuration, well or badly."""
    files, how, cases = play.files, event.details["how"], play.watchman.cases
    sound = all(case.wallet.sound for case in cases.values())
    if files.broken or not sound or files.now < files.edited_until:
        return
    play.counts[f"edit {how}"] += 1
    case = _case(play, event)
    if how == "add" and len(cases) < 6:
        files.add_profile(play.next_number())
    elif how == "remove" and case and len(cases) > 1:
        files.remove_profile(case)
    elif how in ("add", "remove", "change") and case:
        files.change_profile(case)
    else:
        files.break_configuration(how)
        play.later(event.lasting, "the configuration is mended", files.mend_configuration)
    if not files.broken:
        files.write_configuration()
    if event.details["tell"]:
        play.machine.signal(signal.SIGHUP)


# ---- the machine


def _clock(play: Play, event: Event) -> None:
    step = event.details["step"]

    def set_clock(seconds: float) -> None:
        play.machine.step_clock(seconds)
        play.watchman.disturbed(seconds)

    set_clock(step)
    play.later(event.lasting, "the clock is set back", partial(set_clock, -step))


def _suspend(play: Play, event: Event) -> None:
    play.machine.suspend(event.details["seconds"])
    play.watchman.disturbed(slept=event.details["seconds"])


def _disk(play: Play, event: Event) -> None:
    machine = play.machine
    if not machine.mounted:
        return
    disks = {"run": [machine.run_disk], "state": [machine.state_disk]}.get(
        event.details["which"], [machine.run_disk, machine.state_disk]
    )

    def fail() -> None:
        for disk in disks:
            if event.details["how"] == "full":
                disk.fill()
            else:
                disk.lock()
            play.later(event.lasting, f"{disk.path.name} can be written again", disk.mend)

    if event.details["between"] and any(case.plan.twin for case in play.watchman.cases.values()):
        play.after_a_first_file = fail
        return
    fail()
    if event.details["how"] == "full" and (case := _case(play, event)) and event.details["who"] % 3 == 0:
        play.later(min(20.0, event.lasting / 2), "", partial(play.files.tamper, case, "delete"))


def _tamper(play: Play, event: Event) -> None:
    if case := _case(play, event):
        play.files.tamper(case, event.details["how"])


def _hook(play: Play, event: Event) -> None:
    """Let hooks fail, or a kill come between a new token and its hook."""
    case = _case(play, event)
    if case and case.plan.hook:
        refresh(play, case)
        if event.details["who"] % 2:
            play.later(0.6, "", play.kill)
            return
    play.files.fail_hooks(fail=True)
    play.later(event.lasting, "hooks work again", partial(play.files.fail_hooks, fail=False))


# ---- the process


def _kill(play: Play, event: Event) -> None:
    play.down_for, play.leftover = max(5.0, event.lasting), event.details["leftover"]
    play.meddled = event.details["meddled"]
    if event.details["after"] == "now":
        play.kill()
    else:
        play.kill_after(event.details["after"], event.details["steps"])


def _stop(play: Play, event: Event) -> None:
    play.stop(max(5.0, event.lasting))


def _refresh(play: Play, event: Event) -> None:
    if case := _case(play, event):
        refresh(play, case)
        for number in range(event.details["again"]):  # in the midst of an attempt, or of writing what came of it
            play.later((number + 1) * 1.3 + play.random.random(), "", partial(refresh, play, case))


def refresh(play: Play, case: Case) -> None:
    """Ask the agent for a new token, as `token-agent refresh` does."""
    loop = play.machine.loop
    if loop and play.machine.ready:
        play.watchman.may_ask(case)
        case.wish(play.time.true)
        loop.call_soon(lambda: loop.create_task(play.machine.supervisor.refresh([case.plan.name])))


def _hangup(play: Play, _event: Event) -> None:
    play.machine.signal(signal.SIGHUP)


_DOERS: dict[str, Callable[[Play, Event], None]] = {
    **dict.fromkeys(("outage", "hiccup", "throttle", "refusal", "stale", "slow", "provider clock"), _fault),
    "drought": _drought,
    "foreign": _foreign,
    "lifetime": _lifetime,
    "rotation": _rotation,
    "edit": _edit,
    "clock": _clock,
    "suspend": _suspend,
    "disk": _disk,
    "tamper": _tamper,
    "hook fails": _hook,
    "kill": _kill,
    "stop": _stop,
    "refresh": _refresh,
    "hangup": _hangup,
}

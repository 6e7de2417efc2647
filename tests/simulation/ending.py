"""The end of a scenario: everything is mended, and within a bounded time all must be well; then nothing may be left."""

from __future__ import annotations

import gc
import signal
import threading
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from agent import status
from tests.simulation import events
from tests.simulation.machine import BrokenError

if TYPE_CHECKING:
    from tests.simulation.play import Play

LONGEST_REST = 3600.0
"""What the contract lets a provider ask for."""


def mend(play: Play) -> None:
    """Mend everything, wait as long as the contract allows, and see that all is fresh and nothing is left over."""
    play.trace.line("EVENT everything is mended")
    _mend_providers(play)
    _mend_machine(play)
    play.settle()
    play.pass_until(play.time.true + 20 * 60)
    play.forget_events()
    if not play.machine.running:
        play.start()
    rest = max((case.rest for case in play.watchman.cases.values()), default=0.0) - play.time.true
    if rest > LONGEST_REST + 60:
        raise BrokenError("the simulator lets the agent rest too long")
    play.settle()
    play.pass_until(play.time.true + max(0.0, rest) + 20 * 60)
    _all_well(play)
    if play.scenario.seed % 3 == 0:  # it takes as long as a day, and what leaks does so with every seed
        _keeps_nothing(play)
    play.stop(0.0)


def _mend_providers(play: Play) -> None:
    for site in play.sites:
        site.handle.recover()
        site.foreign.clear()
        site.handle.settings(token_lifetime=play.scenario.sites[site.number], refresh_in=None)


def _mend_machine(play: Play) -> None:
    machine, files = play.machine, play.files
    play.forget_events()
    machine.run_disk.mend()
    machine.state_disk.mend()
    files.fail_hooks(fail=False)
    if machine.time.wrong:
        machine.step_clock(-machine.time.wrong)
        play.watchman.disturbed()
    files.mend_configuration()
    for case in play.watchman.cases.values():
        if not case.wallet.sound:
            case.wallet.pair, case.wallet.sound = files.new_pair(), True
        files.register(case)
        files.write_pair(case)
        play.watchman.may_ask(case)
    play.stopped = False
    if not machine.running:
        play.start()


def _all_well(play: Play) -> None:
    """See that status shows nothing but fresh profiles with the certificates that lie on disk."""
    machine = play.machine
    play.watchman.compare(strictly=True)
    board = machine.services.board
    document = status.document(board.agent, tuple(board.profiles.values()), machine.clock.now(), running=True)
    if document["agent"]["config"]["error"]:
        raise BrokenError(f"the configuration is still refused: {document['agent']['config']['error']}")
    for entry in document["profiles"]:
        case = play.watchman.cases[entry["name"]]
        wrong = [key for key in ("last_error",) if entry[key]]
        if entry["state"] != "fresh" or wrong or entry["credential"]["candidate_error"]:
            raise BrokenError(f"{entry['name']} is not well in the end: {entry}")
        if entry["credential"]["thumbprint"] != case.wallet.pair.thumbprint:
            raise BrokenError(f"{entry['name']} does not use the certificate that lies on disk")
    _left(play)


def _left(play: Play) -> None:
    """See that the files of removed profiles are where they should be."""
    for path, deleted in play.files.left.items():
        given_up = path.stem in play.watchman.undeleted  # on a disk that could not be written, and said so
        if deleted is not None and not given_up and path.exists() == deleted:
            raise BrokenError(f"{path.name} of a removed profile should {'not ' * deleted}be there")
    if found := play.files.leftovers():
        raise BrokenError(f"temporary files are left: {found}")


ROUNDS = 5
"""In which everything happens that makes the engine begin something anew."""


def _keeps_nothing(play: Play) -> None:
    """See that whatever happens again and again leaves nothing behind: no object, task, thread or descriptor."""
    _rounds(play)
    before = _held(play)
    _rounds(play)
    grown = {name: count - before[name] for name, count in _held(play).items() if count - before[name] >= ROUNDS}
    if grown:
        raise BrokenError(f"{ROUNDS} rounds of reloads and renewals leave something behind: {grown}")


def _rounds(play: Play) -> None:
    for number in range(ROUNDS):
        case = next(iter(play.watchman.cases.values()))
        case.plan = replace(case.plan, timeout=21 + number % 2)
        play.files.write_configuration()
        play.watchman.may_ask(case)
        play.machine.signal(signal.SIGHUP)
        play.pass_until(play.time.true + 40 + play.files.notice)
        events.refresh(play, case)
        play.files.tamper(case, "delete")
        play.pass_until(play.time.true + 40 + play.files.notice)
        if play.scenario.seed % 2 == 0:
            case.wallet.pair = play.files.new_pair()
            play.files.register(case)
            play.files.write_pair(case)
            play.pass_until(play.time.true + 40 + play.files.notice)


def _held(play: Play) -> Counter[str]:
    """Count what the process holds."""
    play.watchman.forget()
    gc.collect()
    kinds = (type(each) for each in gc.get_objects())
    held = Counter(kind.__name__ for kind in kinds if str(kind.__module__).startswith(("agent.", "tests.simulation.t")))
    held.update(thread=threading.active_count(), descriptor=len(list(Path("/proc/self/fd").iterdir())))
    return Counter({name: count for name, count in held.items() if name not in _OUR_OWN})


_OUR_OWN = ("Entry", "UsedIds", "RegisteredCertificate", "_Ordered")
"""The provider's journal and registry."""

"""What `token-agent check` says of a profile's hook (`on_refresh`): can it run, and will systemd let it?"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from agent.commands.check_report import Report
    from agent.config.model import Config, OnRefresh, Profile


def look(profile: Profile, config: Config, report: Report) -> None:
    """Report on the hook of a profile, if it has one."""
    from agent.errors import ConfigurationError, Problem

    hook = profile.on_refresh
    if hook is None:
        return
    where = f'profile "{profile.name}": on_refresh'
    errors = [Problem(config.path, None, f"{where}.{key}", message, hint) for key, message, hint in _errors(hook)]
    for problem in errors:
        report.error(ConfigurationError((problem,)))
    for warning in _warnings(hook, _user(config.agent.runtime_dir)):
        report.warning(f"{profile.name}: on_refresh.{warning}")
    if not errors:
        report.good(f"on_refresh: {', '.join(_described(hook))}")


def _user(runtime_dir: Path) -> int:
    """Return whom the agent runs as: whoever owns its directory, if it ran before."""
    try:
        return runtime_dir.stat().st_uid
    except OSError:
        return os.geteuid()


def _described(hook: OnRefresh) -> Iterator[str]:
    if hook.reload_unit:
        yield f"reload_unit {' '.join(hook.reload_unit)}"
    if hook.signal:
        yield f"signal {hook.signal.signal} by {hook.signal.pid_file}"
    if hook.command:
        yield f"command {hook.command[0]}"


def _errors(hook: OnRefresh) -> Iterator[tuple[str, str, str]]:
    """Yield what cannot work: key, message, hint."""
    from agent import hooks

    if hook.reload_unit and (reason := hooks.obstacle(program := hooks.reload_command(())[0])):
        yield "reload_unit", f"{program}: {reason}", "without systemd use signal or command"
    if hook.command and (reason := hooks.obstacle(hook.command[0])):
        yield "command", f"{hook.command[0]}: {reason}", "a program with its whole path, chmod 0755"


def _warnings(hook: OnRefresh, user: int) -> Iterator[str]:
    """Yield what will be refused to a user, or is not there yet."""
    from agent.hookplan import UNPRIVILEGED

    if hook.reload_unit and user != 0:
        yield (
            f"reload_unit: systemd will refuse: the agent runs as user {user}, and only root may reload units; "
            f"{UNPRIVILEGED}"
        )
    if hook.signal is None:
        return
    path = hook.signal.pid_file
    if not os.path.isdir(path.parent):  # noqa: PTH112 - unlike Path.is_dir, also False where one may not enter
        yield f"signal: {path.parent}: the directory does not exist; does the service make it when it starts?"
    elif (owner := _owner(path)) is not None and user not in (0, owner):
        yield (
            f"signal: the process of {path} is user {owner}'s, and the agent runs as user {user}, which may not "
            f"send it signals; {UNPRIVILEGED}"
        )


def _owner(pid_file: Path) -> int | None:
    """Return the user of the process in a pid file, None if there is none now."""
    from agent import pidfile

    try:
        return pidfile.owner_of(pidfile.read_pid(pid_file))
    except OSError:
        return None

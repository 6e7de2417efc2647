"""Which file belongs to whom: no token file may be another's, nor a file that the agent reads or keeps.

Pure: paths are compared as they are written, after ``a/../b`` and doubled slashes are taken out of them.
"""

from __future__ import annotations

import posixpath
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from agent.config.model import AgentSettings, Profile

Target = tuple[str, Path]
"""A file that is written: who writes it, and where."""


def normal(path: Path) -> str:
    """Return the one spelling of a path."""
    return posixpath.normpath(str(path))


def files_read(profile: Profile) -> Iterator[tuple[str, Path]]:
    """Yield every file a profile reads, and what it is."""
    federated = profile.federated
    hook = profile.on_refresh.signal if profile.on_refresh else None
    named = {
        "assertion_file": federated.assertion_file if federated else None,
        "client_secret_file": profile.client_secret_file,
        "ca_file": profile.ca_file,
        "pid_file": hook.pid_file if hook else None,
    }
    for certificate in profile.certificate:
        files = {"certificate": certificate.path, "key": certificate.key, "password_file": certificate.password_file}
        yield from ((key, path) for key, path in files.items() if path)
    yield from ((key, path) for key, path in named.items() if path)
    yield from (("template_file", file.template_file) for file in profile.token_file if file.template_file)


def taken(settings: AgentSettings, sources: Iterable[Path], profiles: Iterable[Profile]) -> dict[str, str]:
    """Return every path that is no token file's, and what it is."""
    paths = {normal(path): f"the {key} of {profile.name}" for profile in profiles for key, path in files_read(profile)}
    paths |= {normal(path): "a file of the configuration" for path in sources}
    for name in ("status.json", "control.sock", "lock"):
        paths[normal(settings.runtime_dir / name)] = "a file of the agent's own"
    paths[normal(settings.state_dir / "state.json")] = "a file of the agent's own"
    paths[normal(settings.runtime_dir)] = "the agent's runtime_dir"
    paths[normal(settings.state_dir)] = "the agent's state_dir"
    return paths | {normal(path): what for _, path, what in _made_besides(settings)}


def _made_besides(settings: AgentSettings) -> Iterator[tuple[str, Path, str]]:
    """Yield what the agent makes where [agent] says so: the key, the path, and what it is."""
    if settings.metrics_textfile:
        yield "metrics_textfile", settings.metrics_textfile, "the metrics_textfile"
    if settings.metrics_listen and settings.metrics_listen.startswith("unix:"):
        path = Path(settings.metrics_listen.removeprefix("unix:"))
        yield "metrics_listen", path, "the socket of metrics_listen"


def agent_conflicts(
    settings: AgentSettings, sources: Iterable[Path], profiles: Iterable[Profile]
) -> Iterator[tuple[str, str]]:
    """Yield each key of [agent] that names a file which is something else's, and whose; token files say it themselves.

    Args:
        settings: [agent].
        sources: the files of the configuration.
        profiles: all of them.
    """
    bare = settings.model_copy(update={"metrics_textfile": None, "metrics_listen": None})
    named = list(_made_besides(settings))
    targets = [(what, path) for _, path, what in named]
    for number, message in conflicts(targets, taken(bare, sources, profiles)):
        yield named[number][0], message


def conflicts(targets: Iterable[Target], paths: dict[str, str]) -> Iterator[tuple[int, str]]:
    """Yield the number of each target that collides with what is taken or with an earlier target, and how."""
    named = [(number, owner, normal(path)) for number, (owner, path) in enumerate(targets)]
    known = dict(paths)
    for number, owner, path in named:
        if path in known:
            yield number, f"this is {known[path]}"
        known.setdefault(path, f"a file that {owner} writes")
    parents = {str(parent): path for path in known for parent in PurePosixPath(path).parents}
    for number, _, path in named:
        below = parents.get(path)
        if below and path not in paths:
            yield number, f"this is a directory of {known[below]}"

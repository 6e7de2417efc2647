"""``token-agent once`` itself, killed at every point, against the real emulator."""

from __future__ import annotations

import os
import sys
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, ClassVar

from agent import cli
from agent.engine.loading import Loader
from tests.benchmarks.__main__ import emulator
from tests.certificate_helpers import CLIENT_ID
from tests.crashpoints import checks, tracer
from tests.crashpoints.scenarios import Scenario
from tests.emulator_helpers import signing_key
from tests.process_helpers import write_config
from tests.sink_helpers import GROUP, OTHER

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

FILES: dict[str, dict[str, Any]] = {
    "run/app.token": {},
    "run/app.json": {"format": "json", "mode": "0640", "group": str(GROUP)},
    "other/app.env": {"format": "env", "mode": "0640", "owner": str(OTHER), "group": str(GROUP)},
    "other/app.header": {"format": "header", "readers": ["user:65534"]},
    "other/link": {"follow_symlink": True},
}
"""The token files of one profile, and how they differ from the usual."""


class Once(Scenario):
    """Tokens are acquired once more though none is due, into files of all formats and for all kinds of readers."""

    name = "once"
    arguments: ClassVar[tuple[str, ...]] = ("--force",)
    formats: ClassVar = {path: str(keys.get("format", "raw")) for path, keys in FILES.items()} | {
        "run/one.token": "raw"
    }

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self._beside = root.parent
        self._ready: dict[str, str] = {}

    @contextmanager
    def surrounded(self) -> Iterator[None]:
        (self._beside / "idp").mkdir(mode=0o700)
        (self._beside / "idp" / "signing.pem").write_bytes(signing_key().pem)  # by it the tokens are known here
        with emulator(self._beside, [CLIENT_ID]) as self._ready:
            yield

    def prepare(self) -> None:
        for name in ("run", "state", "other"):
            (self.root / name).mkdir(mode=0o755)
        (self.root / "other" / "link").symlink_to("target")
        self._configure({path: {"path": self.root / path, **keys} for path, keys in FILES.items()})
        self._once()

    def _configure(self, files: dict[str, dict[str, Any]], **agent: Any) -> None:
        usual = {
            "client_id": CLIENT_ID,
            "authority": f"{self._ready['url']}/{self._ready['tenant']}",
            "ca_file": self._ready["ca_file"],
            "certificate": self._beside / "bench.pem",
            "scopes": "api://crash/.default",
        }
        app = {"name": "app", **usual, "token_file": list(files.values())}
        write_config(self.root, app, {"name": "one", **usual}, **agent)

    def act(self) -> None:
        self._silence()
        tracer.wait_to_be_traced()
        self._once(*self.arguments)

    def restart(self) -> None:
        config = Loader(self.root / "config.toml", {}).config()
        held = checks.tokens(self.root, self.formats)
        due = {profile.name for profile in config.profiles} - checks.reusable(
            config, self.root, held, datetime.now(UTC)
        )
        self._once()
        assert checks.renewed(config, self.root, held, checks.tokens(self.root, self.formats)) == due

    def _once(self, *arguments: str) -> None:
        """Run the command, which has to succeed."""
        self._silence()
        code = cli.run(["once", *arguments, "--config", str(self.root / "config.toml")])
        assert code == 0, f"ended with {code}:\n{(self._beside / 'log').read_text()[-1000:]}"

    def _silence(self) -> None:
        """Let this process say what it has to say to a file."""
        log = os.open(self._beside / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        os.dup2(log, sys.stdout.fileno())
        os.dup2(log, sys.stderr.fileno())
        os.close(log)


class First(Once):
    """The very first time: directories, lock, documents and token files are all made."""

    name = "first"
    arguments: ClassVar = ()
    formats: ClassVar = {"new/run/app.token": "raw", "new/run/one.token": "raw"}

    def prepare(self) -> None:
        places = {"runtime_dir": self.root / "new" / "run", "state_dir": self.root / "new" / "lib" / "state"}
        self._configure({"app": {"path": "app.token"}}, **places)

"""From configuration files to profiles: all files, all problems, one answer.

Pure: files are read, patterns expanded and the environment looked at through the arguments. The walk: read the
main file, then the included ones; validate ``[agent]`` and ``[defaults]``; make a profile of each ``[[profile]]``;
look at them together. `load_config` returns nothing unless everything is right.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from agent import formats
from agent.config import claims, proxies, rules
from agent.config.complaints import MISSING, TOP_LEVEL, Complaint, unknown_key, validate
from agent.config.drafts import Draft, dotted, without_number
from agent.config.includes import load_included
from agent.config.model import AgentSettings, Config, Profile, ProfileKeys, TokenFile
from agent.config.source import Source, parse, read_problem
from agent.config.values import default_directories, shown
from agent.errors import ConfigurationError, Problem

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from pathlib import Path

    from agent.config.locate import Key

_ONLY_PROFILES = "an included file holds [[profile]] entries only"


def load_config(
    path: Path,
    environ: Mapping[str, str],
    read_bytes: Callable[[Path], bytes],
    expand: Callable[[Path, str], list[Path]],
) -> Config:
    """Return the configuration of a file and of all it includes.

    Args:
        path: of the main file, absolute.
        environ: for systemd's directories, and for ``proxy = "environment"``.
        read_bytes: returns the content of a file, or raises OSError.
        expand: returns the files that match a glob pattern relative to a directory.

    Raises:
        ConfigurationError: with everything that is wrong, in the order of files and lines.
    """
    config, problems = load_sound(path, environ, read_bytes, expand)
    if problems:
        raise ConfigurationError(problems)
    return config


def load_sound(
    path: Path,
    environ: Mapping[str, str],
    read_bytes: Callable[[Path], bytes],
    expand: Callable[[Path, str], list[Path]],
) -> tuple[Config, list[Problem]]:
    """Return what can be used of a configuration, for a look at it, and all that is wrong with the rest.

    The profiles are those that are right by themselves; of [agent] what is wrong is left out, as if it were not said.

    Args:
        path: as for `load_config`, and so are the others.
        environ: for variables.
        read_bytes: reads.
        expand: finds.

    Raises:
        ConfigurationError: the main file cannot be read, or is no TOML.
    """
    try:
        main = parse(path, read_bytes(path))
    except OSError as error:
        raise ConfigurationError([Problem(path, None, "", *read_problem(error))]) from error
    return _Loading(main, environ, read_bytes, expand).run()


@dataclass(slots=True)
class _Loading:
    """What is known in the middle of loading."""

    main: Source
    environ: Mapping[str, str]
    read: Callable[[Path], bytes]
    expand: Callable[[Path, str], list[Path]]
    problems: list[Problem] = field(default_factory=list)
    sound: list[Profile] = field(default_factory=list)
    """The profiles that nothing is wrong with, each by itself."""
    templates: list[Path] = field(default_factory=list)
    outputs: list[tuple[Draft, Key, Path]] = field(default_factory=list)
    """The token files: whose, which key of it, and where."""

    def run(self) -> tuple[Config, list[Problem]]:
        """Return what can be used of the configuration, and all that is wrong."""
        settings = self._settings()
        self._check_defaults()
        files = [self.main, *load_included(self.main, settings.include, self.read, self.expand)]
        sources = [file for file in files if isinstance(file, Source)]
        self.problems += [file for file in files if isinstance(file, Problem)]
        for source in sources:
            self._check_top_level(source)
        drafts = [draft for source in sources for draft in self._drafts(source)]
        profiles = [profile for draft in drafts if (profile := self._profile(draft, settings))]
        self._check_names(drafts)
        self._check_files(settings, [source.path for source in sources], profiles)
        if not (drafts or settings.include or self.problems):
            hint = "add one [[profile]] for each token; config.example.toml shows how"
            self._add(self.main, (), Complaint((), "there is no [[profile]]", hint))
        config = Config(
            path=self.main.path,
            agent=settings,
            profiles=tuple(self.sound),
            sources=tuple(dict.fromkeys([*(source.path for source in sources), *self.templates])),
            warnings=tuple(_warnings(self.sound)),
        )
        return config, self._sorted(files)

    def _sorted(self, files: list[Source | Problem]) -> list[Problem]:
        """Return the problems in the order of files and lines, each once: many profiles inherit one default."""
        paths = [file.path if isinstance(file, Source) else file.file for file in files]
        order = {path: number for number, path in reversed(list(enumerate(paths)))}
        distinct = dict.fromkeys(self.problems)
        return sorted(distinct, key=lambda problem: (order[problem.file], problem.line or 0))

    def _add(self, source: Source, table: Key, complaint: Complaint) -> None:
        """Note what is wrong in a table that is not a profile's."""
        key = (*table, *complaint.key)
        line = source.lines.line(key)
        self.problems.append(Problem(source.path, line, dotted(key, source.data), complaint.message, complaint.hint))

    # ---- tables

    def _settings(self) -> AgentSettings:
        """Return [agent]; what is wrong in it is left out, so that the rest can be checked."""
        runtime_dir, state_dir = default_directories(self.environ)
        table = self._table("agent")
        keys = {"runtime_dir": runtime_dir, "state_dir": state_dir, **table}
        settings, complaints = validate(AgentSettings, keys, self.environ)
        wrong = {complaint.key[0] for complaint in complaints}
        complaints += [complaint for complaint in rules.agent_rules(table) if complaint.key[0] not in wrong]
        for complaint in complaints:
            self._add(self.main, ("agent",), complaint)
        if settings is None:
            rest = {key: value for key, value in keys.items() if key not in wrong}
            defaults = {"runtime_dir": runtime_dir, "state_dir": state_dir}
            settings = AgentSettings.model_validate({**defaults, **rest}, context=self.environ)
        return settings

    def _table(self, name: str) -> dict[str, Any]:
        """Return a table of the main file, empty if there is none or it is none."""
        table = self.main.data.get(name, {})
        if isinstance(table, dict):
            return table
        self._add(self.main, (name,), Complaint((), "must be a table", f"write [{name}]"))
        return {}

    def _check_defaults(self) -> None:
        """Check [defaults] by itself, also where no profile inherits it; it may be incomplete."""
        table = self._table("defaults")
        for complaint in validate(ProfileKeys, table, self.environ)[1]:
            if complaint.message != MISSING:
                single = not isinstance(table.get(str(complaint.key[0])), list)
                key = without_number(complaint.key) if single else complaint.key
                self._add(self.main, ("defaults",), complaint._replace(key=key))

    def _check_top_level(self, source: Source) -> None:
        for key in source.data:
            if key not in TOP_LEVEL:
                self._add(source, (), unknown_key((key,), None))
            elif key != "profile" and source is not self.main:
                self._add(source, (), Complaint((key,), f"belongs in {self.main.path}", _ONLY_PROFILES))

    def _drafts(self, source: Source) -> Iterator[Draft]:
        entries = source.data.get("profile", [])
        if not isinstance(entries, list):
            hint = "write [[profile]], with two brackets: there can be several"
            self._add(source, ("profile",), Complaint((), "must be a list of tables", hint))
            return
        for number, entry in enumerate(entries):
            if isinstance(entry, dict):
                yield Draft.of(source, number, self.main, entry)
            else:
                self._add(source, ("profile", number), Complaint((), "must be a table", "write [[profile]]"))

    # ---- profiles

    def _profile(self, draft: Draft, settings: AgentSettings) -> Profile | None:
        """Return the profile of a draft, None if it cannot be one; its token files may be incomplete then."""
        token_files, complaints = self._token_files(draft, settings)
        profile, wrong = validate(Profile, {**draft.keys, "token_file": token_files}, self.environ)
        complaints += wrong
        if profile and profile.proxy == proxies.ENVIRONMENT:
            profile, wrong = self._with_proxy(profile)
            complaints += wrong
        self._complain(draft, complaints, rules.profile_rules(draft.keys))
        if profile and not complaints:
            self.sound.append(profile)
        return profile

    def _complain(self, draft: Draft, complaints: list[Complaint], more: Iterable[Complaint]) -> None:
        """Note complaints; what a rule says of a key that is wrong by itself would only say it twice."""
        wrong = {complaint.key for complaint in complaints}
        complaints += [complaint for complaint in more if complaint.key not in wrong]
        self.problems += map(draft.problem, complaints)

    def _token_files(self, draft: Draft, settings: AgentSettings) -> tuple[list[TokenFile], list[Complaint]]:
        tables, complaints = draft.token_files(settings.runtime_dir)
        files = []
        for number, table in enumerate(tables):
            if table is None:
                continue
            token_file, wrong = validate(TokenFile, table, self.environ)
            if draft.name is None:  # then there is no NAME.token, either; once is enough
                wrong = [complaint for complaint in wrong if complaint != (("path",), MISSING, "")]
            keys = {complaint.key for complaint in wrong}
            wrong += [complaint for complaint in rules.token_file_rules(table) if complaint.key not in keys]
            if token_file and not wrong:
                token_file, wrong = self._with_template(token_file)
            if token_file and not wrong:
                files.append(token_file)
                self.outputs.append((draft, ("token_file", number), token_file.path))
            complaints += [complaint._replace(key=("token_file", number, *complaint.key)) for complaint in wrong]
        return files, complaints

    def _with_template(self, token_file: TokenFile) -> tuple[TokenFile, list[Complaint]]:
        """Return the token file with the text of its template_file, and what is wrong with that."""
        path = token_file.template_file
        if path is None:
            return token_file, []
        try:
            template = self.read(path).decode()
        except OSError as error:
            return token_file, [Complaint(("template_file",), f"{shown(path)}: {read_problem(error)[0]}")]
        except UnicodeDecodeError:
            return token_file, [Complaint(("template_file",), f"{shown(path)}: it is not UTF-8")]
        self.templates.append(path)
        problem = formats.template_problem(template)
        wrong = [Complaint(("template_file",), f"{shown(path)}: {problem}")] if problem else []
        return token_file.model_copy(update={"template": template}), wrong

    def _with_proxy(self, profile: Profile) -> tuple[Profile, list[Complaint]]:
        """Return the profile with the proxy that the environment names now, so that nothing looks there later."""
        try:
            proxy = proxies.from_environment(profile.authority_url, self.environ)
        except ValueError as error:
            return profile, [Complaint(("proxy",), str(error))]
        return profile.model_copy(update={"proxy": proxy}), []

    # ---- all together

    def _check_names(self, drafts: Iterable[Draft]) -> None:
        first: dict[str, Draft] = {}
        for draft in drafts:
            if draft.name and first.setdefault(draft.name, draft) is not draft:
                other = first[draft.name]
                line = other.source.lines.line(("profile", other.number, "name"))
                message = f"another profile has this name: {other.source.path}:{line}"
                self.problems.append(draft.problem(Complaint(("name",), message, "names are unique")))
                # That its token file is the other's as well goes without saying.
                self.outputs = [output for output in self.outputs if output[0] is not draft]

    def _check_files(self, settings: AgentSettings, sources: list[Path], profiles: list[Profile]) -> None:
        """No token file may be another's, nor one that is read; nor may what the agent makes besides."""
        hint = "each file has a path of its own"
        for name, message in claims.agent_conflicts(settings, sources, profiles):
            self._add(self.main, ("agent",), Complaint((name,), message, hint))
        targets = [(draft.label, path) for draft, _, path in self.outputs]
        for number, message in claims.conflicts(targets, claims.taken(settings, sources, profiles)):
            draft, key, _ = self.outputs[number]
            self.problems.append(draft.problem(Complaint(key, message, "each token file has a path of its own")))


def _warnings(profiles: list[Profile]) -> Iterator[str]:
    """Yield what works but deserves a look."""
    if not profiles:
        yield "there is no profile yet: no file of `include` holds one"
    for profile in profiles:
        yield from rules.profile_warnings(profile)

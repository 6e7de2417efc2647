"""Events to standard error: one line each, as console text, journal text or JSON; secrets withheld in all of them.

Under systemd they go to the journal itself instead, with their fields, as long as it is there.
structlog's own loggers carry our events. Records of the libraries (MSAL, urllib3, asyncio, warnings) arrive
through the standard library's logging and become events called ``library.log``. Every text value of every event
goes through `redaction.redact`; the renderers come last and are exchangeable. Writing never fails: a log that cannot be
written is lost, the tokens are not.
"""

from __future__ import annotations

import json
import logging
import os
import re
import sys
import textwrap
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from agent import journal, messages, redaction

# structlog takes rich along where it finds it, for tracebacks on a console that are not printed here: 3 MB and 0.1 s
# of every agent's start. As long as this import lasts there is none.
_rich = sys.modules.pop("rich", None)
sys.modules["rich"] = None  # type: ignore[assignment]
import structlog  # noqa: E402
from structlog import processors  # noqa: E402

del sys.modules["rich"]
if _rich:
    sys.modules["rich"] = _rich

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, MutableMapping
    from pathlib import Path

    from structlog.typing import FilteringBoundLogger

    Event = MutableMapping[str, Any]

LIBRARIES = ("msal", "urllib3")
"""Heard at debug level too; whatever else logs, from its warnings on."""
LONGEST = 30_000
"""Characters of one value; journald splits lines of more than 48 KB."""
DEEPEST = 6
"""Levels of nesting shown as such; a value that contains itself has no end."""

_PRIORITIES = {"debug": 7, "info": 6, "warning": 4, "error": 3, "critical": 2}
"""syslog(3)."""
_NOTHING: tuple[object, ...] = (None, "", [])
_COLOURS = {"debug": "2", "info": "32", "warning": "33", "error": "31", "critical": "31;1"}
_UNESCAPED = re.compile(r"[\x7f-\x9f\u2028\u2029\ud800-\udfff]")
"""What JSON may hold as it is, but terminals and line readers may not."""
_PLAIN = re.compile(r"[\w@%+:,./~\[\]-]+", re.ASCII)


def configure(
    level: str,
    format: str,  # noqa: A002 - the key is called log_format
    environ: Mapping[str, str],
    journal_socket: Path = journal.SOCKET,
) -> None:
    """Set up logging, or change it; loggers that were handed out follow.

    Args:
        level: ``debug``, ``info``, ``warning`` or ``error``.
        format: ``console``, ``journal``, ``json``, or ``auto`` for the one that suits standard error.
        environ: for ``NO_COLOR``, ``TERM`` and ``JOURNAL_STREAM``.
        journal_socket: where the journal takes events; without one they go to standard error, in any format.
    """
    if format == "auto":
        format = "console" if _is_terminal() else "journal" if journal.is_stream(environ) else "json"  # noqa: A001 - as above
    native = format == "journal" and "JOURNAL_STREAM" in environ
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            processors.add_log_level,
            processors.TimeStamper(fmt="iso", utc=True),
            processors.format_exc_info,
            _withhold,
            _arrange,
            _native if native else _renderer(format, environ),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=partial(_ToJournal, journal.Journal(journal_socket)) if native else _StandardError,
        cache_logger_on_first_use=False,  # a cached logger would keep the old level
    )
    root = logging.getLogger()
    if _BRIDGE not in root.handlers:
        root.addHandler(_BRIDGE)
    for name in LIBRARIES:
        logging.getLogger(name).setLevel(logging.DEBUG if level == "debug" else logging.WARNING)
    logging.captureWarnings(capture=True)


def is_configured() -> bool:
    """Tell whether events have a place to go."""
    return structlog.is_configured()


def get_logger() -> FilteringBoundLogger:
    """Return the logger of the engine; it follows later calls of `configure`."""
    return cast("FilteringBoundLogger", structlog.get_logger())


def _withhold(_logger: object, _method: str, event: Event) -> Event:
    """Mask secrets in all values, and make them values that JSON has."""
    return {str(key): _clean(value, key) for key, value in event.items()}


def _clean(value: object, key: object = None, depth: int = 0) -> Any:
    """Return a value as text, number, truth, None, or lists and objects of these."""
    if key in redaction.NAMES and value is not None:
        return redaction.WITHHELD
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, dict) and depth < DEEPEST:
        return {redaction.redact(str(name)): _clean(item, name, depth + 1) for name, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset) and depth < DEEPEST:
        return [_clean(item, depth=depth + 1) for item in value]
    if isinstance(value, float) and value - value == 0:  # neither infinite nor "not a number"
        return value
    text = redaction.redact(value if isinstance(value, str) else str(value))
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}… ({len(text)} characters)"


def _arrange(_logger: object, _method: str, event: Event) -> Event:
    """Put the keys that every event has first."""
    first = {key: event.pop(key) for key in ("timestamp", "level", "event", "profile") if key in event}
    return first | dict(event)


def _renderer(format: str, environ: Mapping[str, str]) -> Callable[[object, str, Event], str]:  # noqa: A002 - as above
    """Return the last processor, which makes an event a line."""
    terminal = _is_terminal()
    if format == "console":
        coloured = terminal and not environ.get("NO_COLOR") and environ.get("TERM") != "dumb"
        return _Console(coloured=coloured, wrapped=terminal)
    return _journal if format == "journal" else _json


def _is_terminal() -> bool:
    return sys.stderr is not None and os.isatty(2)


def _json(_logger: object, _method: str, event: Event) -> str:
    line = json.dumps(event, ensure_ascii=False, separators=(", ", ": "))
    return _UNESCAPED.sub(lambda match: f"\\u{ord(match[0]):04x}", line)


def _journal(_logger: object, _method: str, event: Event) -> str:
    """Return text with its priority in front (sd-daemon(3)); the journal itself keeps time and level."""
    return f"<{_priority(event)}>{_message(event)}"


def _native(logger: object, method: str, event: Event) -> tuple[tuple[str], dict[str, Any]]:
    """Return what the journal keeps of an event, and the line that stands for it where there is no journal."""
    told = {key: value for key, value in event.items() if key not in ("timestamp", "level") and value not in _NOTHING}
    long = {key: value for key, value in told.items() if isinstance(value, str) and "\n" in value and key != "event"}
    below = [f"    {_printable(line)}" for value in long.values() for line in value.splitlines()]
    fields = [
        ("MESSAGE", "\n".join([_message({key: told[key] for key in told if key not in long}), *below])),
        ("PRIORITY", str(_priority(event))),
        ("SYSLOG_IDENTIFIER", journal.IDENTIFIER),
        *((journal.name_of(key), value if isinstance(value, str) else _as_json(value)) for key, value in told.items()),
    ]
    return (_journal(logger, method, event),), {"fields": fields}


def _priority(event: Event) -> int:
    return _PRIORITIES.get(event["level"], 6)


def _message(event: Event) -> str:
    return " ".join([_inline(event["event"]), *_pairs(event)])


class _Console:
    """Text for people: time, level, event, then key=value; on a terminal wrapped between the pairs."""

    def __init__(self, *, coloured: bool, wrapped: bool) -> None:
        self._coloured, self._wrapped = coloured, wrapped

    def __call__(self, _logger: object, _method: str, event: Event) -> str:
        trace = event.pop("exception", None)
        level = event["level"]
        head = f"{event['timestamp'][:19]}Z {level:7} {_inline(event['event'])}"
        lines = [" ".join([head, *_pairs(event)])]
        if self._wrapped:
            lines = _wrap(head, _pairs(event), _columns())
        if self._coloured:
            lines[0] = lines[0].replace(f" {level} ", f" \x1b[{_COLOURS.get(level, '0')}m{level}\x1b[0m ", 1)
        if trace:
            lines += [f"    {_printable(line)}" for line in trace.splitlines()]
        return "\n".join(lines)


def _columns() -> int:
    try:
        return os.get_terminal_size(2).columns or 80
    except OSError:
        return 80


def _wrap(head: str, pairs: list[str], columns: int) -> list[str]:
    """Fill lines with pairs; a pair that is longer than a line is broken between its words."""
    lines = [head]
    for pair in pairs:
        if len(lines[-1]) + 1 + len(pair) <= columns:
            lines[-1] += f" {pair}"
        else:
            filler = textwrap.TextWrapper(max(columns, 20), "    ", "      ")
            filler.break_long_words = filler.break_on_hyphens = False  # names and addresses stay whole
            lines += filler.wrap(pair)
    return lines


def _pairs(event: Event) -> list[str]:
    """Return key=value for all that an event tells besides; what is empty or unknown is left out."""
    rest = ((key, value) for key, value in event.items() if key not in ("timestamp", "level", "event"))
    return [f"{_printable(key)}={_inline(value)}" for key, value in rest if value not in _NOTHING]


def _inline(value: object) -> str:
    """Return a value on one line, quoted where it is more than a word."""
    text = value if isinstance(value, str) else _as_json(value)
    if _PLAIN.fullmatch(text) or not isinstance(value, str):
        return _printable(text)
    return '"' + _printable(text.replace("\\", "\\\\").replace('"', '\\"')) + '"'


def _as_json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)


def _printable(text: str) -> str:
    """Escape what would begin a new line or move a terminal's cursor."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in text)


class _StandardError:
    """Writes lines to standard error."""

    def __init__(self, *_names: object) -> None:
        pass

    def msg(self, line: str) -> None:
        """Write a line, or lose it."""
        if sys.stderr is not None:  # closed before we began: by now the descriptor may be any file's
            messages.STANDARD_ERROR.write(f"{line}\n".encode(errors="backslashreplace"))

    debug = info = warning = error = critical = msg


class _ToJournal:
    """Sends events to the journal; while there is none, their lines go to standard error."""

    def __init__(self, entries: journal.Journal, *_names: object) -> None:
        self._entries, self._instead = entries, _StandardError()

    def msg(self, line: str, fields: Iterable[tuple[str, str]]) -> None:
        """Send an event."""
        if not self._entries.send(fields):
            self._instead.msg(line)

    debug = info = warning = error = critical = msg


class _Bridge(logging.Handler):
    """Turns a library's record into an event of ours."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            message = record.getMessage()
        except (TypeError, ValueError, KeyError):
            message = str(record.msg)  # its arguments do not fit
        logger = get_logger()
        logger.log(
            min(record.levelno // 10 * 10 or logging.DEBUG, logging.CRITICAL),
            "library.log",
            logger=record.name,
            message=message.strip(),
            exc_info=record.exc_info,
        )


_BRIDGE = _Bridge()

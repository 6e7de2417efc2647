"""The errors an operator may meet, each with the fix it asks for.

::

    AgentError                  exit  kind           what it says
    ├── ConfigurationError        78  configuration  the configuration cannot be used
    ├── CredentialError           78  configuration  certificate, key, password, secret or assertion file is unusable
    ├── OutputError               78  output         a token file cannot be written where it should be
    ├── BusyError                 75  transient      another agent holds this runtime directory
    ├── ShortageError             75  transient      this machine has no thread or no memory left for us
    ├── UnreachableError          69  transient      the running agent does not answer
    └── AcquisitionError                             no token was acquired:
        ├── TransientError        75  transient      network, provider or clock: trying again can help
        └── RejectedError         77  rejected       the provider says no: a person must act

Exit codes are those of sysexits.h. Anything else that escapes is a bug (exit 1).
No message and no hint ever holds a secret, a key, an assertion or a token.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import timedelta
    from pathlib import Path

Kind = Literal["transient", "rejected", "configuration", "output"]


class AgentError(Exception):
    """Something an operator can understand and mend: what is wrong, and a hint at what to do."""

    exit_code: ClassVar[int] = 1
    kind: ClassVar[Kind] = "configuration"

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong in the configuration.

    Attributes:
        file: the file that holds it.
        line: counted from 1; None where no line can be named.
        key: dotted path within the file as a person would say it, such as ``profile "graph": refresh.at``.
        message: what is wrong.
        hint: the fix, or the nearest valid key.
    """

    file: Path
    line: int | None
    key: str
    message: str
    hint: str = ""

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}" if self.line else str(self.file)
        key = f" {self.key}:" if self.key else ""
        hint = f" ({self.hint})" if self.hint else ""
        return f"{place}:{key} {self.message}{hint}"


class ConfigurationError(AgentError):
    """The configuration cannot be used; ``problems`` holds all of what is wrong, in the order of the files."""

    exit_code = 78

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__("\n".join(map(str, problems)))
        self.problems = tuple(problems)


class CredentialError(AgentError):
    """A certificate, key, password, secret or assertion file cannot be used.

    ``missing`` is true where the file does not exist (yet): the one case where waiting alone can help.
    """

    exit_code = 78

    def __init__(self, path: Path, message: str, *, hint: str = "", missing: bool = False) -> None:
        super().__init__(f"{path}: {message}", hint=hint)
        self.path = path
        self.missing = missing


class OutputError(AgentError):
    """A token file cannot be written; whatever was there before is still there, whole."""

    exit_code = 78
    kind = "output"

    def __init__(self, path: Path, message: str, *, hint: str = "") -> None:
        super().__init__(f"{path}: {message}", hint=hint)
        self.path = path


class BusyError(AgentError):
    """Another agent holds this runtime directory."""

    exit_code = 75
    kind = "transient"


class ShortageError(AgentError):
    """This machine has no thread, or no memory, left for us."""

    exit_code = 75
    kind = "transient"


class UnreachableError(AgentError):
    """The running agent does not answer."""

    exit_code = 69
    kind = "transient"


class AcquisitionError(AgentError):
    """No token was acquired.

    ``code`` is the AADSTS code as Entra writes it (``AADSTS700027``) or the OAuth 2.0 error (RFC 6749 5.2);
    ``correlation_id`` finds the attempt in Entra's sign-in logs. ``skew`` is this machine's clock minus the provider's,
    if it said what time it is. ``answered`` is true where it was plainly the token endpoint that has spoken, to this
    client: about its credential, its scope, or how often it asks.
    """

    skew: timedelta | None = None
    answered: bool = False

    def __init__(
        self, message: str, *, hint: str = "", code: str | None = None, correlation_id: str | None = None
    ) -> None:
        super().__init__(message, hint=hint)
        self.code = code
        self.correlation_id = correlation_id


class TransientError(AcquisitionError):
    """Network, provider or clock: the same request can succeed later.

    ``retry_after`` is the provider's own wish (RFC 9110 10.2.3), as it was sent. ``unreachable`` says that
    the provider as a whole does not work (no connection, 5xx, a proxy's page), not just this request.
    """

    exit_code = 75
    kind = "transient"

    def __init__(
        self,
        message: str,
        *,
        hint: str = "",
        code: str | None = None,
        correlation_id: str | None = None,
        retry_after: timedelta | None = None,
        unreachable: bool = False,
    ) -> None:
        super().__init__(message, hint=hint, code=code, correlation_id=correlation_id)
        self.retry_after = retry_after
        self.unreachable = unreachable


class RejectedError(AcquisitionError):
    """The provider refuses the credential or the request: nothing changes until a person acts."""

    exit_code = 77
    kind = "rejected"

"""The provider of a hunt, in a process of its own: the emulator, whose tokens are numbered and of several lengths."""

from __future__ import annotations

import signal
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from agent.emulator.issuing import SigningKey
from tests import emulator_helpers
from tests.certificate_helpers import CLIENT_ID
from tests.hunt.board import PROVIDER, Board, die_with_parent

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

    from tests.certificate_helpers import Pair

LIFETIME = timedelta(minutes=10)
LENGTHS, STEP = 7, 900
"""How many lengths tokens have, and how they differ: a file has one page, or two, or three."""


@dataclass(frozen=True, slots=True)
class Numbering(SigningKey):
    """Signs as the emulator does, and counts."""

    board: Board = field(repr=False)
    issuer: int

    def sign(self, claims: dict[str, Any]) -> str:
        """Return a JWT that has the next number. The emulator makes one token at a time."""
        serial = self.board.issued[self.issuer] + 1
        self.board.issued[self.issuer] = serial
        return self.numbered(claims, serial)

    def numbered(self, claims: dict[str, Any], serial: int) -> str:
        """Return a JWT with this number."""
        return SigningKey.sign(self, claims | {"serial": serial, "padding": "x" * (serial % LENGTHS * STEP)})

    @classmethod
    def of(cls, board: Board, issuer: int) -> Numbering:
        """Return the key by which all know a token, with a count of its own."""
        known = emulator_helpers.signing_key()
        return cls(known.key, known.certificate, board, issuer)


def serve(board: Board, pair: Pair, ready: Connection) -> None:
    """Be the provider until killed; send authority and CA file when it can be asked."""
    die_with_parent()
    with emulator_helpers.running(token_lifetime=LIFETIME) as handle:
        handle.register(CLIENT_ID, pair)
        handle.provider.key = Numbering.of(board, PROVIDER)
        ready.send((handle.authority, str(handle.ca_file)))
        signal.sigwait({signal.SIGTERM})

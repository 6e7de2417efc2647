"""What keeps metrics from being shown: said once in the log, and shown by ``systemctl status`` until it is over."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from agent.engine.services import Services


class Troubles:
    """Remembers by key of the configuration what is wrong; all else goes on, so it is no more than said."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._known: dict[str, str] = {}

    def met(self, key: str, message: str, hint: str) -> None:
        """Note that something is wrong; the log has it again only when it has become something else."""
        if self._known.get(key) != message:
            self._services.log.error("metrics.unavailable", key=key, message=message, hint=hint)
            self._known[key] = message
            self._show()

    def over(self, key: str) -> None:
        """Note that nothing is wrong (any more)."""
        if self._known.pop(key, None) is not None:
            self._show()

    def _show(self) -> None:
        message = "; ".join(f"{key}: {message}" for key, message in self._known.items())
        self._services.board.update_agent(metrics_error=message or None)

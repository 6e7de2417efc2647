"""What a fleet does to its provider: ``python -m tests.fleet`` prints the figures and draws `docs/fleet.svg`.

Thousands of agents as a simulation of events: an agent is its instants, and every one of them comes from the
program's own pure functions (`agent.schedule`, `agent.admission`, `agent.engine.progress`). `agents` makes the events,
`scenarios` are what happens to a fleet, `figures` are peak and mean, `plot` draws, `report` puts it into words. That
the instants are those of the whole engine is held by `tests/test_fleet.py`, with the real one in virtual time.
"""

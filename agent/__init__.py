"""token-agent: keeps Microsoft Entra ID app-only tokens fresh in files.

The walk from configuration to token file:

    config.load          TOML text to frozen profiles (config.model), all problems at once
    engine.loading       a profile with its credentials from disk (credentials.store) is a job
    engine.changes       what differs between desired and running jobs
    engine.supervisor    makes it so (engine.crew), from start to stop
    engine.renewal       keeps one profile fresh: which credential (rotation), when (schedule)
    engine.acquisition   through the gate (admission) and a thread (workers) to ...
    network.entra        ... MSAL, over network.transport; failures are explained by diagnosis
    engine.publishing    a token to its files: rendered by formats, written by output.sink
    engine.hooking       who has to be told is told: programs by hooks, beside everything else (hookplan)
    engine.board         what is known of all profiles (status), what the next start must know (state)

Five layers; imports point only down (held by tests/test_architecture.py). Pure modules decide: config, schedule,
rotation, formats, diagnosis, status, state, tokens. Edges each wrap one outside thing: credentials, network, output,
watching, clock, workers, log, journal, systemd, lock, memory, control. The engine puts them in motion, the command line
assembles. Beside them stand emulator, a local token endpoint, doctor and demo; nothing of the agent imports them.
"""

__version__ = "0.1.0"

"""Randomised virtual days: the real engine, real MSAL and real files, a provider and a machine that misbehave by seed.

    python -m tests.simulation --seed N [--days D] [--trace]    one scenario, replayed exactly
    python -m tests.simulation --days 10000                     as many as that takes, on all cores
    python -m tests.simulation --broken                         on machines that are broken: are they found?
    python -m tests.simulation --mutants                        with an agent that is broken: is it found? (takes long)

How a scenario goes: `scenario` draws a list of events from the seed; `play` makes them happen, one after the other, to
a `machine` (clock, disks, files, an agent that is started, killed and stopped) and its `providers`; `watchman` looks at
everything after each step of the loop and before each stretch of time, and calls out when a promise is broken.
Time is virtual (`turns`, `clocks`), and only one thread ever runs, so that the same seed is the same run.
"""

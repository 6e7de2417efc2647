"""Every crash there can be: the agent is killed before each system call of a whole operation, one run for each.

    python -m tests.crashpoints                     the calls that change files: what CI runs
    python -m tests.crashpoints --all               every system call there is; takes hours
    python -m tests.crashpoints reload --from 120   one scenario, from a point on

How a point goes: a `scenarios` operation is prepared once; for every point its directories are put back as they were,
and a process forked from this one performs the operation under a `tracer`, which ends it as it enters the n-th call,
whichever of its threads makes it. Then `checks` looks at what readers find; the agent starts again, and has to end with
fresh tokens and with exactly the files that are meant to be there. Points are counted until a run comes to its end.

A state of the disk that a crash can leave lies between two calls that change files, and these are all taken one by one;
`--all` takes the moments in between besides. In virtual time (`living`) it is the real engine with its real threads.
"""

"""The hunt for a torn read: a token file is read a million times while its writers are killed and started again.

    python -m tests.hunt                            a million reads on tmpfs, and a million on the disk
    python -m tests.hunt --directory DIR --kills 9  in a directory of your choice
    python -m tests.hunt --writer in-place          a writer that is not atomic: it is found

Whoever reads a token file, at any moment and in any way, has to find a whole token of the right profile that the
provider issued, and never an older one than anybody has read there before. What is rotated how fast:

- the agent: an unchanged ``token-agent run`` against the emulator. It asks for a profile at most once a second, so
  there are 24, each due after 1.02 to 1.2 s: while it runs, one of them every 50 ms. Each has a file of every format.
- the writer: a process that does with numbered tokens of its own what the agent does in the end (`formats.render`,
  `sink.write`), without waiting for a provider: it replaces a file of every format, each of them every 50 ms.

Both are killed with SIGKILL and started again at once, over and over: at random moments, the agent also as it starts,
and every other time in the middle of a write, if that can be caught. The `readers` are processes that go on through all
of it as fast as they can, each in its own manner.

Every token is numbered by who issues it (`provider`), so that their order is known. A `board` in shared memory has the
newest number that anybody has read from each file, or that was written there for good: whoever begins to read after
that must not find less.
"""

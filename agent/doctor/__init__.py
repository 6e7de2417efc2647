"""The examination behind ``token-agent doctor``: an installed system, seen from the side of those who read tokens.

``rights`` decides who may enter and read what, ``sandbox`` what a unit hides from its service (both pure); ``walk``
looks at a path step by step, ``people`` at the user database, ``surroundings`` at systemd and mounts, and ``evidence``
tries for real. ``readers``, ``places``, ``keys``, ``confinement``, ``runtime`` and ``network`` yield findings, each
with its fix. Nothing is changed, and no credential is sent.
"""

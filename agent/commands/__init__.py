"""The commands, one module each; `agent.cli` imports a module only when its command is called.

Every module has a click command named ``command``. Heavy imports (MSAL, cryptography, pydantic, rich) stand
inside the functions, so that ``--help`` and ``status`` answer at once.
"""

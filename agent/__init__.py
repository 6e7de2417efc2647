"""token-agent: keeps Microsoft Entra ID app-only tokens fresh in files."""

__version__ = "0.1.0"

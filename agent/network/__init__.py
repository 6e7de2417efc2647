"""The way to an identity provider: `entra` asks through MSAL, `transport` carries it over HTTPS."""

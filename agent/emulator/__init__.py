"""A local, strict stand-in for the Microsoft identity platform's token endpoint.

A pure core, and a thin server around it::

    wire        a request and its answer, as values
    refusals    every way in which Entra says no, in its own words and shape
    registry    tenants, apps, certificates, secrets, trust: what a portal would hold
    assertion   client assertions, verified as strictly as Entra does, or more so
    issuing     the signing key, access tokens, discovery and keys
    faults      what goes wrong on request, in sequence
    provider    a request and the time in, an answer out: no threads, no clock, no files
    admin       the same for the interface that registers apps and orders faults
    authority   the certificate authority and the signing key, kept in a directory
    server      HTTPS and HTTP on loopback, with nothing but the standard library

No web framework: an agent's environment should not carry one for the sake of a stand-in. Nothing of the agent imports
this package but the demonstration.
"""

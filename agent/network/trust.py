"""Whom to trust: TLS contexts made from a CA file or from the system's own trust store, and from nothing else.

`ssl.create_default_context` is not used, for two reasons. It lets the environment decide (SSL_CERT_FILE,
SSL_CERT_DIR, SSLKEYLOGFILE), and from Python 3.13 on it sets VERIFY_X509_STRICT, which refuses authorities that curl,
OpenSSL and every earlier Python accept: those of TLS-inspecting proxies often lack a key identifier or a critical
mark (azure-cli#33716). Signatures, validity and names are verified either way.
"""

from __future__ import annotations

import errno
import os
import re
import ssl
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

_HASHED = re.compile(r"[0-9a-f]{8}\.\d+")
BUNDLES = (
    "/etc/ssl/certs/ca-certificates.crt",  # Debian, Arch, Alpine
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",  # Fedora, RHEL
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",  # SUSE
    "/etc/ssl/cert.pem",
)
"""Where distributions keep their trust store, for an OpenSSL that was built to look elsewhere."""


def context(ca_file: Path | None) -> ssl.SSLContext:
    """Return a client's context; making one is dear (tens of milliseconds, 0.7 MB), so it is to be shared.

    Args:
        ca_file: PEM with the certificates to trust instead of the system's. Any of them ends a chain, also one
            that is not self-signed.

    Raises:
        OSError: they cannot be read, or there are none.
    """
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # verifies certificate and name
    tls.minimum_version = ssl.TLSVersion.TLSv1_2
    tls.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # as curl; the default from Python 3.13 on
    tls.set_alpn_protocols(["http/1.1"])
    if ca_file is None:
        _trust_system(tls)
        return tls
    try:
        tls.load_verify_locations(cafile=str(ca_file))
    except ssl.SSLError as error:
        raise OSError(errno.EINVAL, "it holds no certificate of an authority", str(ca_file)) from error
    return tls


def _trust_system(tls: ssl.SSLContext) -> None:
    built_in = ssl.get_default_verify_paths()
    trust_first(tls, built_in.openssl_capath, (built_in.openssl_cafile, *BUNDLES))


def trust_first(tls: ssl.SSLContext, directory: str, bundles: Iterable[str]) -> None:
    """Load a trust store: a hashed directory if there is one, since it is read as needed (0.2 ms, not 23).

    Raises:
        FileNotFoundError: there is neither such a directory nor a bundle.
    """
    if _is_hashed(directory):
        tls.load_verify_locations(capath=directory)
        return
    for bundle in bundles:
        if Path(bundle).is_file():
            tls.load_verify_locations(cafile=bundle)
            return
    raise FileNotFoundError(errno.ENOENT, "there is no trust store on this system", directory)


def _is_hashed(directory: str) -> bool:
    """Tell whether OpenSSL can find certificates in a directory by the hash of their subject."""
    try:
        with os.scandir(directory) as entries:
            return any(_HASHED.fullmatch(entry.name) for entry in entries)
    except OSError:
        return False

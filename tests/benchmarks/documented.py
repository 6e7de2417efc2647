"""MSAL as its documentation shows it: an application a profile, the private key as PEM text, its own session.

Arguments as for `floor`.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import msal
from cryptography import x509
from cryptography.hazmat.primitives import hashes


def main() -> None:
    authority, ca_file, pem_file, out = sys.argv[1:5]
    pem = Path(pem_file).read_text()
    certificate = x509.load_pem_x509_certificate(pem.encode())
    thumbprint = certificate.fingerprint(hashes.SHA1()).hex()  # noqa: S303 - what the documentation shows
    os.environ["REQUESTS_CA_BUNDLE"] = ca_file
    for client_id in sys.stdin.read().split():
        app = msal.ConfidentialClientApplication(
            client_id,
            authority=authority,
            client_credential={"private_key": pem, "thumbprint": thumbprint},
            instance_discovery=False,
        )
        result = app.acquire_token_for_client(["api://bench/.default"])
        Path(out, f"{client_id}.token").write_text(result["access_token"])


if __name__ == "__main__":
    main()

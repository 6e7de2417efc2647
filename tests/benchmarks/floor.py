"""The floor: what N tokens cost at the very least. One process, one thread, one kept connection, no framework.

Load the key once; for each profile sign one assertion, send one request, write one file durably.
Arguments: authority URL, CA file, certificate PEM, directory for the token files, client ids (one a line, stdin).
"""

from __future__ import annotations

import base64
import http.client
import json
import os
import ssl
import sys
import time
import uuid
from pathlib import Path
from urllib.parse import urlencode, urlsplit

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.serialization import load_pem_private_key


def encoded(value: bytes) -> str:
    return base64.urlsafe_b64encode(value).rstrip(b"=").decode()


def main() -> None:
    authority, ca_file, pem_file, out = sys.argv[1:5]
    pem = Path(pem_file).read_bytes()
    key = load_pem_private_key(pem, None, unsafe_skip_rsa_key_validation=True)
    assert isinstance(key, rsa.RSAPrivateKey)
    thumbprint = x509.load_pem_x509_certificate(pem).fingerprint(hashes.SHA256())
    header = encoded(json.dumps({"alg": "PS256", "typ": "JWT", "x5t#S256": encoded(thumbprint)}).encode())
    pss = padding.PSS(padding.MGF1(hashes.SHA256()), padding.PSS.DIGEST_LENGTH)
    parts = urlsplit(f"{authority}/oauth2/v2.0/token")
    connection = http.client.HTTPSConnection(parts.netloc, context=ssl.create_default_context(cafile=ca_file))
    directory = os.open(out, os.O_RDONLY)
    for client_id in sys.stdin.read().split():
        now = int(time.time())
        claims = {
            "aud": parts.geturl(), "iss": client_id, "sub": client_id, "jti": str(uuid.uuid4()), "iat": now,
            "exp": now + 600,
        }  # fmt: skip
        signed = f"{header}.{encoded(json.dumps(claims).encode())}"
        signature = encoded(key.sign(signed.encode(), pss, hashes.SHA256()))
        body = urlencode(
            {
                "client_id": client_id,
                "grant_type": "client_credentials",
                "scope": "api://bench/.default",
                "client_assertion_type": "urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
                "client_assertion": f"{signed}.{signature}",
            }
        )
        connection.request("POST", parts.path, body, {"Content-Type": "application/x-www-form-urlencoded"})
        token = json.loads(connection.getresponse().read())["access_token"]
        descriptor = os.open(f"{out}/{client_id}.tmp", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        os.write(descriptor, token.encode())
        os.fsync(descriptor)
        os.close(descriptor)
        os.rename(f"{out}/{client_id}.tmp", f"{out}/{client_id}.token")  # noqa: PTH104 - the system call itself
        os.fsync(directory)


if __name__ == "__main__":
    main()

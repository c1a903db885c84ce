"""When the certificate ends by which this shard proves to Azure who it is."""

import os
from pathlib import Path

from cryptography import x509

VARIABLE = "AZURE_CLIENT_CERTIFICATE_PATH"


def expires() -> float | None:
    """Return the end of the certificate that azure-identity reads, in seconds since 1970; None where there is none.

    Never raises: azure-identity itself says what is wrong with a certificate.
    """
    try:
        return x509.load_pem_x509_certificate(Path(os.environ[VARIABLE]).read_bytes()).not_valid_after_utc.timestamp()
    except (KeyError, OSError, ValueError):
        return None

"""The connection string, as people paste it: quotes, blanks and line breaks go; what is missing is named."""

import re

from uploader.blob.checksum import decoded
from uploader.errors import BadConfiguration

VARIABLE = "AZURE_STORAGE_CONNECTION_STRING"
_FORM = (
    "it has to be AccountName=...;AccountKey=...;EndpointSuffix=core.windows.net, "
    "or BlobEndpoint=https://...;SharedAccessSignature=..."
)
_SECRETS = {"accountkey", "sharedaccesssignature"}


def connection_string(text: str) -> str:
    """Return the string in its plain form. Raises BadConfiguration, which never holds a key or a signature."""
    text = re.sub(r"\s+", "", text)
    while len(text) > 1 and text[0] == text[-1] and text[0] in "'\"":
        text = text[1:-1]
    if text.lower().startswith(("https://", "http://")):
        raise _wrong("it is a URL; write BlobEndpoint=<the URL up to the ?>;SharedAccessSignature=<what follows the ?>")
    parts = {name: value.strip("'\"") for name, value in map(_pair, filter(None, text.split(";")))}
    have = {name.lower() for name, value in parts.items() if value}
    if not have & _SECRETS:
        raise _wrong(f"neither AccountKey nor SharedAccessSignature is in it; {_FORM}")
    if "blobendpoint" not in have and "accountname" not in have:
        raise _wrong(f"neither AccountName nor BlobEndpoint is in it; {_FORM}")
    for name, value in parts.items():
        if name.lower() == "accountkey" and value and decoded(value) is None:
            raise _wrong("its AccountKey is not base64: copy the key whole")
        if name.lower() == "sharedaccesssignature":
            parts[name] = value.lstrip("?")
            if value and "sig=" not in value:
                raise _wrong("its SharedAccessSignature has no sig=: copy the signature whole")
    return ";".join(f"{name}={value}" for name, value in parts.items() if value)


def _pair(part: str) -> tuple[str, str]:
    name, equals, value = part.strip("'\"").partition("=")
    if not equals or not name.isalpha():
        raise _wrong(f"a part of it is not Name=value; {_FORM}")
    return name, value


def _wrong(why: str) -> BadConfiguration:
    return BadConfiguration(f"{VARIABLE}: {why}")

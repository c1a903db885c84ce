"""The discarding endpoint as a process: compiled when needed, plain or TLS, with a latency for each request."""

import ssl
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import trustme

from tests.support.programs import ACCOUNT

SOURCES = [Path(__file__).parent / name for name in ("discard.c", "blobs.c")]
# A shared access signature as peers want it; nobody looks at it.
SIGNATURE = "sv=2023-11-03&ss=b&srt=sco&sp=rwdlacx&se=2099-01-01T00:00:00Z&sig=ZHVtbXk%3D"


def build(folder: Path) -> Path:
    """Compile the endpoint into this folder; needs gcc and OpenSSL's headers."""
    program = folder / "discard"
    if not program.exists():
        argv = [
            "gcc",
            "-O2",
            "-Wall",
            "-Wextra",
            "-Werror",
            "-o",
            str(program),
            *map(str, SOURCES),
            "-lssl",
            "-lcrypto",
            "-lpthread",
        ]
        subprocess.run(argv, check=True)
    return program


@dataclass(frozen=True)
class Discard:
    """A running endpoint."""

    port: int
    process: subprocess.Popen[str]
    authority: Path | None

    @property
    def url(self) -> str:
        """The account's URL."""
        return f"{'https' if self.authority else 'http'}://127.0.0.1:{self.port}/{ACCOUNT}"

    @property
    def connection_string(self) -> str:
        """Our client gets a shared access signature like the peers: signing with the key would be extra work."""
        return f"BlobEndpoint={self.url};SharedAccessSignature={SIGNATURE}"

    @property
    def trust(self) -> dict[str, str]:
        """The environment in which a client trusts its certificate."""
        if not self.authority:
            return {}
        return {"SSL_CERT_FILE": str(self.authority), "REQUESTS_CA_BUNDLE": str(self.authority)}

    def client(self) -> httpx.Client:
        """Return a client for `stats`."""
        verify = ssl.create_default_context(cafile=self.authority) if self.authority else False
        return httpx.Client(base_url=self.url.removesuffix(ACCOUNT), verify=verify, timeout=10, trust_env=False)


def stats(client: httpx.Client) -> tuple[int, int]:
    """Return the numbers of whole requests and of body bytes that have arrived."""
    requests, content = client.get("stats").text.split()
    return int(requests), int(content)


@contextmanager
def discard(folder: Path, *, tls: bool, latency: float = 0, line: float = 0) -> Iterator[Discard]:
    """Run the endpoint; `latency` in seconds is added to each request, `line` is bytes/s of all together, 0: no limit."""
    argv = [str(build(folder)), str(int(latency * 1e6)), str(int(line))]
    authority = folder / "authority.pem" if tls else None
    if authority:
        issuer = trustme.CA()
        issuer.cert_pem.write_to_path(authority)
        certificate = issuer.issue_cert("127.0.0.1", "localhost")
        certificate.private_key_pem.write_to_path(folder / "key.pem")
        certificate.cert_chain_pems[0].write_to_path(folder / "certificate.pem")
        argv += [str(folder / "certificate.pem"), str(folder / "key.pem")]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield Discard(int(process.stdout.readline()), process, authority)
        finally:
            process.kill()

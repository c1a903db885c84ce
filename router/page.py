"""The status page: one document, style and script inside, under a policy that lets nothing else run."""

from base64 import b64encode
from hashlib import sha256
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response


def _text(ending: str) -> str:
    return (Path(__file__).parent / f"page.{ending}").read_text(encoding="utf-8")


def _hash(text: str) -> str:
    return f"'sha256-{b64encode(sha256(text.encode()).digest()).decode()}'"


STYLE, SCRIPT = _text("css"), _text("js")
PAGE = (
    _text("html")
    .replace("<style></style>", f"<style>{STYLE}</style>")
    .replace("<script></script>", f"<script>{SCRIPT}</script>")
)
POLICY = "; ".join([
    "default-src 'none'",
    f"script-src {_hash(SCRIPT)}",
    f"style-src {_hash(STYLE)}",
    "connect-src 'self'",
    "img-src data:",  # the tab's icon
    "base-uri 'none'",
    "form-action 'none'",  # the script sends the forms
    "frame-ancestors 'none'",
    "require-trusted-types-for 'script'",  # innerHTML and its like throw: names stay text
])  # fmt: skip
HEADERS = {
    "Content-Security-Policy": POLICY,
    "Cache-Control": "no-cache",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


async def respond(_: Request) -> Response:
    """GET /: the status page."""
    return Response(PAGE, media_type="text/html", headers=HEADERS)

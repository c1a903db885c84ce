"""The contract's prose and its examples."""

from typing import Any

ABOUT = """\
Moves files from an NFS share into Azure Blob Storage. A session is a folder below the share's root: what
lies in it, or begins to appear in it, is uploaded to `<prefix><session>/<path>` and then deleted.

The router answers for all shards; every shard answers the same calls for its own sessions. Errors are RFC
9457 problem documents with a `code` to decide by and a `detail` to read. Counters describe a session since it
began, as far as the disk can tell: after a restart of its shard, files that were completed and deleted before
are no longer counted.

No answer within your time-out, or 503: send the request again. Should the first one have been done after all,
a start then answers 409 `already-active` and a stop 200, 202 or 404; nothing is done twice.
"""
STARTED = {
    "session": "run-42",
    "state": "active",
    "shard": 1,
    "folder": "run-42",
    "started_at": "2026-03-01T12:00:00.000Z",
}
STATUS = {
    "sessions": [
        {
            "session": "run-42",
            "state": "active",
            "shard": 1,
            "started_at": "2026-03-01T12:00:00.000Z",
            "files": {"waiting": 3, "uploading": 1, "completed": 7, "failed": 0},
            "bytes": {"uploaded": 70000, "total": 120000},
            "rate_bytes_per_s": 35000.0,
            "eta_s": 1.4,
            "current": [{"path": "a/b.bin", "size": 20000, "uploaded": 5000, "attempts": 1, "error": None}],
            "last_error": None,
        }
    ],
    "shards": [
        {"shard": 0, "reachable": False, "sessions": [], "error": "shard 0 does not answer in time"},
        {"shard": 1, "reachable": True, "sessions": ["run-42"]},
    ],
}
TITLES = {
    400: "Bad Request",
    404: "Not Found",
    409: "Conflict",
    413: "Request Entity Too Large",
    421: "Misdirected Request",
    500: "Internal Server Error",
    502: "Bad Gateway",
    503: "Service Unavailable",
}
PROBLEMS: dict[int, list[dict[str, Any]]] = {
    400: [{"code": "bad-request", "detail": "unknown field 'sesion'; allowed are session, extensions, shard"}],
    404: [{"code": "unknown-session", "detail": "there is no session run-42"}],
    409: [
        {"code": "already-active", "detail": "session run-42 is active on shard 1"},
        {"code": "shard-full", "detail": "every shard is full", "sessions": ["run-41", "run-40"]},
    ],
    413: [{"code": "too-large", "detail": "the body is larger than 65536 bytes"}],
    421: [{"code": "not-owner", "detail": "shard 1 owns session run-42", "shard": 1}],
    500: [{"code": "internal-error", "detail": "KeyError; the log says more"}],
    502: [{"code": "bad-shard", "detail": "shard 1 answered 500; its log says more", "shard": 1}],
    503: [{"code": "not-ready", "detail": "shard 1 does not answer in time"}],
}

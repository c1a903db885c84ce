"""The names of log events, metrics and spans, one constant each.

Keys beside a log's event: session, path, shard, attempt, error. docs/operations.md says what each name is for.
"""

PROCESS_STARTED = "process.started"
PROCESS_ENDS = "process.ends"
PROCESS_FAILED = "process.failed"
ERROR_IGNORED = "error.ignored"
TELEMETRY_OFF = "telemetry.off"
THREAD_FAILED = "thread.failed"
THREAD_ENDED = "thread.ended"

SHARE_SLOW = "share.slow"
SHARE_NOT_A_MOUNT = "share.not_a_mount"
SHARE_TELLS = "share.tells"

STORE_AWAY = "store.away"
STORE_BACK = "store.back"
RECONCILE_FAILED = "reconcile.failed"
RECORD_UNREADABLE = "record.unreadable"
SESSION_STARTED = "session.started"
SESSION_RESUMED = "session.resumed"
SESSION_ADOPTED = "session.adopted"
SESSION_DRAINING = "session.draining"
SESSION_STOPPED = "session.stopped"
SESSION_REOPENED = "session.reopened"
SESSION_SWEPT = "session.swept"
SESSION_LEFT = "session.left"
RESULT_REMOVED = "result.removed"
SESSION_FOLDER_MISSING = "session.folder_missing"

WATCH_UNAVAILABLE = "watch.unavailable"
WATCH_OVERFLOW = "watch.overflow"

RECEIPTS_FAILED = "receipts.failed"

FILE_COMPLETED = "file.completed"
FILE_FAILED = "file.failed"
FILE_GIVEN_BACK = "file.given_back"
FILE_DELETED = "file.deleted"
FILE_UNPROVEN = "file.unproven"
FILE_CHANGED = "file.changed"
FILE_REPLACED = "file.replaced"

UPLOAD_RESUMED = "upload.resumed"
UPLOAD_PRESENT = "upload.present"
UPLOAD_RECOVERED = "upload.recovered"
STAGING_SKIPPED = "staging.skipped"
SNAPSHOT_FAILED = "events.snapshot_failed"
REPLICAS_UNAVAILABLE = "replicas.unavailable"
REPLICAS_KNOWN = "replicas.known"

# Metrics. Units are not part of the names: https://opentelemetry.io/docs/specs/semconv/general/naming/
FILES_UPLOADED = "nfs_watch.files.uploaded"
FILES_FAILED = "nfs_watch.files.failed"
FILES_DELETED = "nfs_watch.files.deleted"
FILES_REPLACED = "nfs_watch.files.replaced"
FILES_WAITING = "nfs_watch.files.waiting"
FILES_UPLOADING = "nfs_watch.files.uploading"
FILES_FAILING = "nfs_watch.files.failing"
CONTENT_UPLOADED = "nfs_watch.content.uploaded"
CONTENT_SENT = "nfs_watch.content.sent"
BLOCKS_SENT = "nfs_watch.blocks.sent"
BLOCKS_SKIPPED = "nfs_watch.blocks.skipped"
UPLOAD_DURATION = "nfs_watch.upload.duration"
DISCOVERY_DELAY = "nfs_watch.discovery.delay"
SCAN_DURATION = "nfs_watch.scan.duration"
SESSIONS_ACTIVE = "nfs_watch.sessions.active"
SESSIONS_ENDED = "nfs_watch.sessions.ended"
FILES_LEFT_BEHIND = "nfs_watch.files.left_behind"
SHARE_AGE = "nfs_watch.share.age"
SHARE_FREE = "nfs_watch.share.free"
STORE_REACHABLE = "nfs_watch.store.reachable"
STORE_DURATION = "nfs_watch.store.duration"
STORE_REFUSALS = "nfs_watch.store.refusals"
FILES_OLDEST = "nfs_watch.files.oldest"
SHARDS_KNOWN = "nfs_watch.shards.known"
SHARDS_REACHABLE = "nfs_watch.shards.reachable"
CERTIFICATE_EXPIRES = "nfs_watch.certificate.expires"

# A file's span, its phases in their order, and its attributes.
FILE_SPAN = "upload file"
CLAIMED = "claimed"
STORED = "stored"  # every byte of content is confirmed
COMMITTED = "committed"
COMPLETED = "completed"
SESSION = "nfs_watch.session"
ATTEMPT = "nfs_watch.attempt"
FILE_PATH = "file.path"
FILE_SIZE = "file.size"
ERROR_TYPE = "error.type"
OUTCOME = "outcome"  # of a conflict
OPERATION = "operation"  # of the store
STATUS = "status"  # of the store's answer
CODE = "code"  # of the store's answer
DRAINED = "drained"  # of a session that has ended

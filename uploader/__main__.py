"""The program: python -m uploader."""

import logging

from uploader import names, serve, telemetry
from uploader.api import app
from uploader.backlog import Backlog
from uploader.blob.adapter import AzureBlobs
from uploader.completed import Completed
from uploader.errors import BadConfiguration, Fatal, ShareLost, StoreAway
from uploader.memory import Memory
from uploader.replicas import replicas
from uploader.service import Service
from uploader.settings import Settings, load
from uploader.share import LOST, OWN, Share
from uploader.stage import Staging
from uploader.store import Records
from uploader.sweep import Sweeper
from uploader.thread import die
from uploader.transfer import Transfer
from uploader.watch import Watch
from uploader.worker import Workers

log = logging.getLogger(__name__)


def main() -> None:
    """Run a shard until it is killed."""
    telemetry.configure("uploader")
    try:
        settings = load()
        at = serve.listener(settings.host, settings.port)
        service = build(settings)
    except Fatal as error:
        die(error)
    log.info(names.PROCESS_STARTED, extra={"shard": settings.ordinal, "port": settings.port})
    serve.run(app(service), at)


def build(settings: Settings) -> Service:
    """Put the parts together and start their threads. Raises Fatal."""
    try:
        count = replicas(settings.replicas, settings.statefulset)
    except ValueError as error:
        raise BadConfiguration(str(error)) from error
    try:
        share = Share(settings.root, settings.ordinal, settings.nfs_timeout)
        records = Records(settings.root / OWN / "sessions", settings.ordinal)
    except OSError as error:
        # A stale mount stays stale when the container restarts in its pod: only a new pod mounts afresh.
        kind = ShareLost if error.errno in LOST else BadConfiguration
        raise kind(f"NFS_WATCH_ROOT={settings.root}: the share is not there or cannot be written: {error}") from error
    blobs = AzureBlobs(settings)
    try:
        blobs.ensure_container()
    except StoreAway as error:
        log.warning(names.STORE_AWAY, extra={"error": str(error)})  # files wait; the first write finds out
    share.watch()
    staging = Staging(settings.staging, settings.staging_size) if settings.staging else None
    backlog = Backlog(settings.block_size)
    completed = Completed(settings, blobs)
    memory = Memory(settings.memory, settings.block_size)
    transfer = Transfer(blobs, memory, settings.connections, content_md5=settings.content_md5)
    service = Service(settings, share, records, count, Watch(), backlog)
    Workers(settings, share, backlog, transfer, completed, staging).start()
    Sweeper(settings, share, completed, service, staging).start()
    service.begin()
    telemetry.observe(service.gauges)
    return service


if __name__ == "__main__":
    main()

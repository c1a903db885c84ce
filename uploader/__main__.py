"""The program: python -m uploader."""

import logging
import sys

from uploader import allocator, arguments
from uploader.app import app
from uploader.backlog.queues import Queues
from uploader.blob import certificate
from uploader.blob.azure import AzureBlobs
from uploader.cluster.replicas import replicas
from uploader.discovery.watch import Watch
from uploader.errors import BadConfiguration, Fatal, ShareLost
from uploader.sessions.records import Records
from uploader.sessions.service import Service
from uploader.settings import Settings, load
from uploader.share import abilities, lease
from uploader.share.destination import Destination, destination, settle
from uploader.share.mount import LOST, OWN, Share
from uploader.sweep.completed import Completed
from uploader.sweep.sweeper import Sweeper
from uploader.telemetry import instruments, names
from uploader.thread import die
from uploader.upload.memory import Memory
from uploader.upload.staging import Staging
from uploader.upload.transfer import Transfer
from uploader.upload.worker import Workers
from uploader.web import server
from uploader.web.places import Places, limits

log = logging.getLogger(__name__)
DESCRIPTORS = 10  # for each connection to the store: its socket, a small and a large file with folder and copy
ABOUT = "A shard of nfs-watch: moves the files of its sessions from an NFS share into Azure Blob Storage."


def main() -> None:
    """Run a shard until it is killed."""
    arguments.read("uploader", ABOUT, sys.argv[1:])
    allocator.frugal()
    lease.ignore_signal()
    instruments.configure("uploader")
    try:
        settings = load()
        most = limits(settings.clients, own(settings))  # before anything is opened
        at = server.listener(settings.host, settings.port)
        service = build(settings)
    except Fatal as error:
        die(error)
    extra = {"shard": settings.ordinal, "port": settings.port, "clients": most.connections}
    log.info(names.PROCESS_STARTED, extra=extra)
    server.run(app(service, Places(most.lasting)), at, most)


def own(settings: Settings) -> int:
    """Return how many descriptors the shard's own work needs: twice what was seen at most (docs/reliability.md)."""
    return 128 + DESCRIPTORS * settings.connections + 4 * settings.max_sessions


def build(settings: Settings) -> Service:
    """Put the parts together and start their threads. Raises Fatal."""
    count = replicas(settings.replicas, settings.statefulset)
    try:
        share = Share(settings.root, settings.ordinal, settings.nfs_timeout)
        abilities.check(share.root, settings.ordinal)
        records = Records(settings.root / OWN / "sessions", settings.ordinal)
    except OSError as error:
        raise _unusable(settings, error) from error
    blobs = AzureBlobs(settings)
    goal = destination(blobs.account, settings.container, settings.blob_prefix)
    _settle(settings, goal)
    share.watch()
    staging = Staging(settings.staging, settings.staging_size) if settings.staging else None
    backlog = Queues(settings.block_size)
    completed = Completed(settings, share, blobs)
    memory = Memory(settings.memory, settings.block_size)
    transfer = Transfer(
        blobs,
        memory,
        settings.connections,
        content_md5=settings.content_md5,
        on_conflict=settings.on_conflict,
    )
    service = Service(settings, share, records, count, Watch(closes=settings.close_write), backlog, completed)
    Workers(settings, share, backlog, transfer, completed, staging).start(blobs.reach.open)
    Sweeper(settings, share, completed, service, staging).start()
    service.begin(blobs.reach, goal)
    blobs.reach.begin()  # no network stands between the start and the first answer to a request
    until = certificate.expires()
    fixed = {} if until is None else {names.CERTIFICATE_EXPIRES: until}
    instruments.observe(lambda: service.gauges() | fixed)
    return service


def _settle(settings: Settings, wanted: Destination) -> None:
    """Make or compare the share's destination. Raises Fatal."""
    try:
        settle(str(settings.root), wanted, settings.ordinal)
    except OSError as error:
        raise _unusable(settings, error) from error


def _unusable(settings: Settings, error: OSError) -> Fatal:
    # A stale mount stays stale when the container restarts in its pod: only a new pod mounts the share again.
    kind = ShareLost if error.errno in LOST else BadConfiguration
    return kind(f"NFS_WATCH_ROOT={settings.root}: the share is not there or cannot be written: {error}")


if __name__ == "__main__":
    main()

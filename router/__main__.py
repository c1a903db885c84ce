"""The program: python -m router."""

import logging
import sys

from router.app import app
from router.settings import load
from uploader import arguments
from uploader.cluster.replicas import replicas
from uploader.errors import Fatal
from uploader.telemetry import instruments, names
from uploader.thread import die
from uploader.web import server
from uploader.web.places import Places, limits

log = logging.getLogger(__name__)
OWN = 512  # descriptors: questions to shards, and calls that are passed on
ABOUT = "The router of nfs-watch: sends each call to the shard that owns the session, and serves the status page."


def main() -> None:
    """Run the router until it is killed."""
    arguments.read("router", ABOUT, sys.argv[1:])
    instruments.configure("router")
    try:
        settings = load()
        at = server.listener(settings.host, settings.port)
        count = replicas(settings.replicas, settings.statefulset)
    except Fatal as error:
        die(error)
    most = limits(settings.clients, OWN)
    extra = {"host": settings.host, "port": settings.port, "clients": most.connections}
    log.info(names.PROCESS_STARTED, extra=extra)
    server.run(app(settings, count, Places(most.lasting)), at, most)


if __name__ == "__main__":
    main()

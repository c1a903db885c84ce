"""The program: python -m router."""

import logging

from router.app import app
from router.settings import load
from uploader.cluster.replicas import replicas
from uploader.errors import BadConfiguration, Fatal
from uploader.telemetry import instruments, names
from uploader.thread import die
from uploader.web import server

log = logging.getLogger(__name__)


def main() -> None:
    """Run the router until it is killed."""
    instruments.configure("router")
    try:
        settings = load()
        at = server.listener(settings.host, settings.port)
        count = replicas(settings.replicas, settings.statefulset)
    except ValueError as error:
        die(BadConfiguration(str(error)))
    except Fatal as error:
        die(error)
    log.info(names.PROCESS_STARTED, extra={"host": settings.host, "port": settings.port})
    server.run(app(settings, count), at)


if __name__ == "__main__":
    main()

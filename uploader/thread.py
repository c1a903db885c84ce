"""Background threads. One that ends unasked ends the process: Kubernetes starts it again, the disk knows the rest."""

import logging
import os
import threading
from collections.abc import Callable
from typing import Any, NoReturn

from uploader.errors import Fatal
from uploader.telemetry import names

log = logging.getLogger(__name__)
EX_SOFTWARE = 70  # sysexits.h
LAST_WORDS = 2.0  # seconds for saying why; whoever reads stdout may hang


def spawn(name: str, target: Callable[..., None], *args: Any, ends: bool = False) -> threading.Thread:  # noqa: ANN401 as Thread
    """Start a daemon thread. Unless `ends`, it must never return."""

    def run() -> None:
        try:
            target(*args)
        except Fatal as error:
            die(error)
        except BaseException:  # the one broad catch of this thread
            _surely(EX_SOFTWARE)
            log.critical(names.THREAD_FAILED, exc_info=True, extra={"in_thread": name})
            end(EX_SOFTWARE)
        if ends:
            return
        _surely(EX_SOFTWARE)
        log.critical(names.THREAD_ENDED, extra={"in_thread": name})
        end(EX_SOFTWARE)

    thread = threading.Thread(target=run, name=name, daemon=True)
    thread.start()
    return thread


def die(error: Fatal) -> NoReturn:
    """Log why and end at once. No clean-up: SIGKILL would not do any either."""
    _surely(error.exit_code)
    log.critical(names.PROCESS_ENDS, extra={"reason": str(error), "exit_code": error.exit_code})
    end(error.exit_code)


def end(code: int) -> NoReturn:
    """End the process now, whatever its threads wait for."""
    _surely(code)
    for handler in logging.getLogger().handlers:
        if isinstance(handler, logging.StreamHandler):
            handler.flush()
    os._exit(code)


def _surely(code: int) -> None:
    """End the process soon, even where a log line never gets out."""
    timer = threading.Timer(LAST_WORDS, os._exit, [code])
    timer.daemon = True
    timer.start()

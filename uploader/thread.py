"""Background threads: one that ends unexpectedly ends the process, and Kubernetes starts the process again."""

import logging
import os
import threading
from collections.abc import Callable
from typing import Any, NoReturn

from uploader.errors import Fatal
from uploader.telemetry import names

log = logging.getLogger(__name__)
EX_SOFTWARE = 70  # sysexits.h
LAST_WORDS = 2.0  # seconds for the last log lines: the reader of stdout may hang


def spawn(name: str, target: Callable[..., None], *args: Any, ends: bool = False) -> threading.Thread:  # noqa: ANN401 as Thread
    """Start a daemon thread. Unless `ends`, the process ends with EX_SOFTWARE when `target` returns."""

    def run() -> None:
        try:
            target(*args)
        except Fatal as error:
            die(error)
        except BaseException:  # the one broad catch of this thread
            _exit_soon(EX_SOFTWARE)
            log.critical(names.THREAD_FAILED, exc_info=True, extra={"in_thread": name})
            end(EX_SOFTWARE)
        if ends:
            return
        _exit_soon(EX_SOFTWARE)
        log.critical(names.THREAD_ENDED, extra={"in_thread": name})
        end(EX_SOFTWARE)

    thread = threading.Thread(target=run, name=name, daemon=True)
    thread.start()
    return thread


def die(error: Fatal) -> NoReturn:
    """Log the error and end the process at once, without clean-up: SIGKILL would do none either."""
    _exit_soon(error.exit_code)
    log.critical(names.PROCESS_ENDS, extra={"reason": str(error), "exit_code": error.exit_code})
    end(error.exit_code)


def end(code: int) -> NoReturn:
    """End the process now, whatever its threads are waiting for."""
    _exit_soon(code)
    for handler in logging.getLogger().handlers:
        if isinstance(handler, logging.StreamHandler):
            handler.flush()
    os._exit(code)


def _exit_soon(code: int) -> None:
    """Exit in LAST_WORDS seconds even if logging blocks."""
    timer = threading.Timer(LAST_WORDS, os._exit, [code])
    timer.daemon = True
    timer.start()

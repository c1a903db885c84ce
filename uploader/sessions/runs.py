"""The sessions that this shard owns, as they run: launched, drained, stopped, left to another shard, forgotten."""

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from uploader.backlog.inventory import Inventory
from uploader.backlog.queues import Queues
from uploader.discovery.discover import Discovery
from uploader.discovery.watch import Watch
from uploader.session import Session, State
from uploader.sessions.records import Records
from uploader.settings import Settings
from uploader.share.mark import Mark
from uploader.share.mount import Share
from uploader.share.scan import Rule
from uploader.telemetry import names

log = logging.getLogger(__name__)


@dataclass
class Run:
    """A session that this shard owns. `discovery` is None once it is stopped.

    `ending`: whoever ends it holds this.
    """

    session: Session
    files: Inventory
    discovery: Discovery | None = None
    ending: threading.Lock = field(default_factory=threading.Lock)


class Runs(dict[str, Run]):
    """All of them, by name. Whoever changes them holds the service's lock; whoever holds it not reads `now`."""

    def __init__(self, settings: Settings, share: Share, records: Records, watch: Watch, backlog: Queues) -> None:
        super().__init__()
        self.wake = threading.Event()  # set when a session has drained
        self._settings = settings
        self._share = share
        self._records = records
        self._watch = watch
        self._backlog = backlog

    def now(self) -> list[Run]:
        """Return the runs of this instant. Copying a dict is one step for all threads, going over it is not."""
        return list(self.copy().values())

    def launch(self, session: Session, event: str, *, fresh: bool = False) -> Run:
        """Begin to do what the record says; its discovery is a thread of its own.

        `fresh`: its folder was made just now.
        """
        run = self[session.name] = self._prepared(session, fresh=fresh)
        self._begin(run, event)
        return run

    def _prepared(self, session: Session, *, fresh: bool) -> Run:
        files = Inventory(session.name, self._settings.queue_size, fresh=fresh)
        if session.state is State.STOPPED:
            return Run(session, files)
        extensions = self._settings.extensions if session.extensions is None else session.extensions
        rule = Rule(extensions, f"{self._settings.blob_prefix}{session.name}/")
        discovery = Discovery(files, rule, self._settings, self._share, self._watch, self._backlog, self.wake)
        if session.state is State.DRAINING:
            discovery.drain()
        return Run(session, files, discovery)

    def _begin(self, run: Run, event: str) -> None:
        if run.discovery:
            run.discovery.start()
            log.info(event, extra={"session": run.session.name, "state": run.session.state})

    def drain(self, run: Run) -> None:
        """Finish what is there, then end. Raises OSError."""
        if self._change(run, replace(run.session, state=State.DRAINING), names.SESSION_DRAINING) and run.discovery:
            run.discovery.drain()

    @contextmanager
    def reopened(self, run: Run) -> Iterator[Inventory | None]:
        """Take up a drained session again: a file has turned out not to be finished. Raises OSError.

        The record is on disk when this gives the new run's files, and its discovery begins at the end: a drain that
        looked before the file has its name back would end without it. None when another shard has changed the record.
        """
        session = replace(run.session, state=State.DRAINING, drained=False)
        if not self._change(run, session, names.SESSION_REOPENED):
            yield None
            return
        again = self[session.name] = self._prepared(session, fresh=False)
        try:
            yield again.files
        finally:
            self._begin(again, names.SESSION_RESUMED)

    def stopped(self, run: Run) -> None:
        """Write down that it has ended; its discovery has. Raises OSError."""
        session = replace(run.session, state=State.STOPPED, drained=run.session.state is State.DRAINING)
        if self._change(run, session, names.SESSION_STOPPED):
            run.discovery = None

    def _change(self, run: Run, session: Session, event: str) -> bool:
        """Write the record; False when another shard has, and the session is left to what it says now."""
        if self._records.get(session.name) != run.session:
            self.leave(run)
            return False
        self._records.replace(session)
        run.session = session
        log.info(event, extra={"session": session.name})
        return True

    def leave(self, run: Run) -> None:
        """Leave everything on the share as it is: the record no longer says what runs here."""
        if run.discovery:
            run.discovery.stop()
        if self.get(run.session.name) is run:
            del self[run.session.name]
        log.warning(names.SESSION_LEFT, extra={"session": run.session.name})

    def forget(self, name: str) -> None:
        """Forget a stopped session whose folder holds nothing of ours any more. Raises OSError."""
        Mark(self._share, name).remove()
        self._records.remove(name)
        del self[name]
        log.info(names.SESSION_SWEPT, extra={"session": name})

"""The sessions that this shard owns: launch, drain, reopen, stop, leave to another shard, forget."""

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial

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
from uploader.sweep.receipts import Receipts
from uploader.telemetry import names

log = logging.getLogger(__name__)


@dataclass
class Run:
    """A session that this shard owns. `discovery` is None once the session is stopped.

    `ending`: held by the thread that ends the session. `late`: this process has known the session stopped only, and
    not why files were left behind.
    """

    session: Session
    files: Inventory
    discovery: Discovery | None = None
    ending: threading.Lock = field(default_factory=threading.Lock)
    late: bool = False


class Runs(dict[str, Run]):
    """The runs by session name. Changed only with the service's lock held; read without that lock through `now`."""

    def __init__(
        self, settings: Settings, share: Share, records: Records, watch: Watch, backlog: Queues, receipts: Receipts
    ) -> None:
        super().__init__()
        self.wake = threading.Event()  # set when a session has drained
        self._settings = settings
        self._share = share
        self._records = records
        self._watch = watch
        self._backlog = backlog
        self._receipts = receipts

    def now(self) -> list[Run]:
        """Return the present runs. Copying a dict is safe while other threads change it, iterating over it is not."""
        return list(self.copy().values())

    def launch(self, session: Session, event: str, *, fresh: bool = False) -> Run:
        """Run a session as its record says, with a discovery thread of its own; `fresh`: its start made its folder."""
        run = self[session.name] = self._prepared(session, fresh=fresh)
        self._begin(run, event)
        return run

    def _prepared(self, session: Session, *, fresh: bool) -> Run:
        files = Inventory(session.name, self._settings.queue_size, fresh=fresh)
        files.count_receipts(*self._receipts.count(session.name))
        files.receipted = partial(self._receipts.among, session.name)
        if session.state is State.STOPPED:
            return Run(session, files, late=True)
        discovery = Discovery(
            files, self.rule(session), self._settings, self._share, self._watch, self._backlog, self.wake
        )
        if session.state is State.DRAINING:
            discovery.drain()
        return Run(session, files, discovery)

    def rule(self, session: Session) -> Rule:
        """Return which names are eligible in a session."""
        extensions = self._settings.extensions if session.extensions is None else session.extensions
        return Rule(extensions, f"{self._settings.blob_prefix}{session.name}/", self._settings.temporary)

    def _begin(self, run: Run, event: str) -> None:
        if run.discovery:
            run.discovery.start()
            log.info(event, extra={"session": run.session.name, "state": run.session.state})

    def drain(self, run: Run) -> None:
        """Let a session finish the files that are there, then stop. Raises OSError."""
        if self._change(run, replace(run.session, state=State.DRAINING), names.SESSION_DRAINING) and run.discovery:
            run.discovery.drain()

    @contextmanager
    def reopened(self, run: Run) -> Iterator[Inventory | None]:
        """Let a drained session drain again, because a file was still being written. Raises OSError.

        The record is on disk when this yields the new run's inventory, and discovery starts at the end: a drain that
        scans before the file has its name back would end without it. None when another shard has changed the record.
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

    def stopped(self, run: Run, *, drained: bool) -> None:
        """Record that a session has stopped, whose discovery has ended; `drained`: by itself. Raises OSError."""
        session = replace(run.session, state=State.STOPPED, drained=drained)
        if self._change(run, session, names.SESSION_STOPPED):
            run.discovery = None

    def _change(self, run: Run, session: Session, event: str) -> bool:
        """Replace the record; False when another process has changed it: then this shard leaves the session."""
        if self._records.get(session.name) != run.session:
            self.leave(run)
            return False
        self._records.replace(session)
        run.session = session
        log.info(event, extra={"session": session.name})
        return True

    def leave(self, run: Run) -> None:
        """Stop running a session whose record no longer matches; leave all its files on the share as they are."""
        if run.discovery:
            run.discovery.stop()
        if self.get(run.session.name) is run:
            del self[run.session.name]
        log.warning(names.SESSION_LEFT, extra={"session": run.session.name})

    def forget(self, name: str) -> None:
        """Remove a stopped session and its record: its result is on the share. Raises OSError."""
        Mark(self._share, name).remove()
        self._records.remove(name)
        del self[name]
        log.info(names.SESSION_SWEPT, extra={"session": name})

"""The sessions that this shard owns, as they run: launched, drained, stopped, left to another shard, forgotten."""

import logging
import threading
from dataclasses import dataclass, field, replace

from uploader.backlog.inventory import Files
from uploader.backlog.queues import Backlog
from uploader.discovery.discover import Discovery
from uploader.discovery.watch import Watch
from uploader.session import Session, State
from uploader.sessions.records import Records
from uploader.settings import Settings
from uploader.share.mount import Share
from uploader.share.scan import Rule
from uploader.sweep.sweeper import Sweeper
from uploader.telemetry import names

log = logging.getLogger(__name__)


@dataclass
class Run:
    """A session that this shard owns. `discovery` is None once it is stopped; `drained` when nothing is left to do.

    `ending`: whoever ends it holds this.
    """

    session: Session
    files: Files
    discovery: Discovery | None = None
    drained: bool = False
    ending: threading.Lock = field(default_factory=threading.Lock)


class Runs(dict[str, Run]):
    """All of them, by name. Whoever changes them holds the service's lock; reading needs none."""

    def __init__(
        self, settings: Settings, share: Share, records: Records, watch: Watch, backlog: Backlog, sweeper: Sweeper
    ) -> None:
        super().__init__()
        self.wake = threading.Event()  # set when a session has drained
        self._settings = settings
        self._share = share
        self._records = records
        self._watch = watch
        self._backlog = backlog
        self._sweeper = sweeper

    def launch(self, session: Session, event: str, *, fresh: bool = False) -> Run:
        """Begin to do what the record says; `fresh`: it was made just now. Its discovery is a thread of its own."""
        files = Files(session.name, self._settings.queue_size, fresh=fresh)
        run = self[session.name] = Run(session, files)
        if session.state is not State.STOPPED:
            extensions = self._settings.extensions if session.extensions is None else session.extensions
            rule = Rule(extensions, f"{self._settings.blob_prefix}{session.name}/")
            run.discovery = Discovery(files, rule, self._settings, self._share, self._watch, self._backlog)
            if session.state is State.DRAINING:
                self._finish(run)
            run.discovery.start()
            log.info(event, extra={"session": session.name, "state": session.state})
        self._tell_sweeper()
        return run

    def drain(self, run: Run) -> None:
        """Finish what is there, then end. Raises OSError."""
        if self._change(run, replace(run.session, state=State.DRAINING), names.SESSION_DRAINING):
            self._finish(run)

    def reopen(self, run: Run) -> None:
        """Take up a drained session again: a file has turned out not to be finished. Raises OSError."""
        if self._change(run, replace(run.session, state=State.DRAINING, drained=False), names.SESSION_REOPENED):
            self.launch(run.session, names.SESSION_RESUMED)

    def _finish(self, run: Run) -> None:
        def finished() -> None:
            run.drained = True
            self.wake.set()

        if run.discovery:
            run.discovery.drain(finished)

    def stopped(self, run: Run) -> None:
        """Write down that it has ended; its discovery has. Raises OSError."""
        session = replace(run.session, state=State.STOPPED, drained=run.session.state is State.DRAINING)
        if self._change(run, session, names.SESSION_STOPPED):
            run.discovery = None
            self._tell_sweeper()

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
        self._tell_sweeper()
        log.warning(names.SESSION_LEFT, extra={"session": run.session.name})

    def forget(self, name: str) -> None:
        """Forget a stopped session whose folder holds nothing of ours any more. Raises OSError."""
        self._records.remove(name)
        del self[name]
        self._tell_sweeper()
        log.info(names.SESSION_SWEPT, extra={"session": name})

    def _tell_sweeper(self) -> None:
        runs = list(self.values())
        self._sweeper.sessions = {run.session.name: run.files for run in runs}
        self._sweeper.stopped = {run.session.name for run in runs if run.session.state is State.STOPPED}

"""The sessions of this shard: start, stop, status, and the loop that reconciles them with their records.

One code path serves start-up, adoption and recovery: every RECONCILE seconds each record is read, and its session
brought to the state there (level-triggered, as Kubernetes' controllers are).
"""

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from uploader.backlog.inventory import Inventory
from uploader.backlog.queues import Queues
from uploader.cluster.placement import rank
from uploader.cluster.replicas import Replicas, ReplicasUnknown
from uploader.discovery.watch import Watch
from uploader.errors import AlreadyActive, BadRequest, NotOwner, NotReady, ShardFull, ShareLost, UnknownSession
from uploader.naming import check_sendable
from uploader.session import Session, State, new_name, now
from uploader.sessions import status
from uploader.sessions.give_back import give_back
from uploader.sessions.records import Records
from uploader.sessions.runs import Run, Runs
from uploader.settings import Settings
from uploader.share.mount import Share
from uploader.sweep.sweeper import Owned
from uploader.telemetry import names
from uploader.thread import spawn
from uploader.web.openapi.models import Ended, Started, Status

log = logging.getLogger(__name__)
RECONCILE = 2.0  # seconds between two readings of the records
GIVE_BACK = 20.0  # seconds that a stop waits for uploads in progress


class Store(Protocol):
    """What is told of the store."""

    waits_for: str | None
    """What keeps the store from being reached, None when nothing does."""
    answered: bool
    """Whether it has answered since the start."""


class Service:
    """What the HTTP handlers call. `start`, `stop` and the loop share one lock; `status` answers from memory."""

    def __init__(
        self,
        settings: Settings,
        share: Share,
        records: Records,
        replicas: Replicas,
        watch: Watch,
        backlog: Queues,
        store: Store | None = None,
    ) -> None:
        self.settings = settings
        self.share = share
        self.records = records
        self.replicas = replicas
        self.runs = Runs(settings, share, records, watch, backlog)
        self.reconciled = False
        self.store = store
        self._lock = threading.RLock()

    def begin(self) -> None:
        """Start the loop."""
        spawn("reconcile", self._loop)

    def start(self, name: str | None, extensions: list[str] | None, shard: int | None) -> Started:
        """Start a session; its record is on disk on return.

        Raises AlreadyActive, BadRequest, NotOwner, NotReady, ShardFull.
        """
        me = self.settings.ordinal
        try:
            check_sendable(tuple(extensions or ()), self.settings.temporary)
        except ValueError as error:
            raise BadRequest(str(error)) from None
        with self._share_or_503(), self._lock:
            record = self.records.mended(name) if name else None
            if record and record.state is not State.STOPPED:
                raise AlreadyActive(f"{name} is {record.state} on shard {record.owner}", shard=record.owner)
            owner = record.owner if record else self._placed(name, shard)
            if owner != me:
                raise NotOwner(f"shard {owner} owns {name or 'the sessions that are to run there'}", shard=owner)
            running = [run.session.name for run in self.runs.values() if run.discovery]
            if len(running) >= self.settings.max_sessions:
                raise ShardFull(f"shard {me} runs {', '.join(running)}", sessions=running)
            wanted = None if extensions is None else tuple(extensions)
            session = Session(name or new_name(), State.ACTIVE, me, now(), wanted)
            fresh = _made(Path(self.share.root) / session.name)
            if record:
                self.records.replace(session)
            elif not self.records.create(session):
                raise AlreadyActive(f"{name} was started somewhere else at the same moment")
            self.runs.launch(session, names.SESSION_STARTED, fresh=fresh)
        return status.started(session)

    def _placed(self, name: str | None, shard: int | None) -> int:
        """Return the shard for a new session: the one that the request names, else the first in the name's rank."""
        count = self._count()
        if shard is not None and shard >= count:
            raise BadRequest(f"there is no shard {shard}: the StatefulSet has {count} replicas")
        if shard is not None:
            return shard
        return rank(name, count)[0] if name else self.settings.ordinal

    def _count(self) -> int:
        try:
            count = self.replicas.count()
        except ReplicasUnknown as error:
            raise NotReady(str(error)) from error
        if count == 0:
            raise NotReady("the StatefulSet is scaled to 0")
        return count

    def stop(self, name: str, *, drain: bool) -> Ended:
        """Stop a session; return its state after that. Raises UnknownSession, NotOwner, NotReady."""
        with self._share_or_503(), self._lock:
            record = self._own_record(name)
            if record.state is State.STOPPED:
                return status.ended(record)
            run = self.runs.get(name) or self.runs.launch(record, names.SESSION_RESUMED)
            if drain:
                self.runs.drain(run)
                return _ended(run, State.DRAINING)
        with self._share_or_503():
            return self._end(run)

    def _end(self, run: Run) -> Ended:
        """End a session at once and give its claims back; other requests do not wait for that."""
        with run.ending:
            if discovery := run.discovery:
                discovery.stop()
                run.files.wait_idle(GIVE_BACK)
                give_back(discovery.walk(), self.share, run.files)
            with self._lock:
                try:
                    record = self._own_record(run.session.name)  # another shard may have adopted it
                    if self.runs.get(record.name) is run and run.discovery:
                        self.runs.stopped(run)
                except OSError:
                    self.runs.leave(run)  # the record still says that the session runs: the loop takes it up again
                    raise
            return _ended(run, State.STOPPED)

    def _own_record(self, name: str) -> Session:
        record = self.records.get(name)
        if record is None:
            raise UnknownSession(f"there is no session {name}")
        if record.owner != self.settings.ordinal:
            raise NotOwner(f"shard {record.owner} owns {name}", shard=record.owner)
        return record

    def status(self, name: str | None = None) -> Status:
        """Return the status of one session, or of all of this shard. Raises UnknownSession, NotOwner, NotReady."""
        runs = self.runs.now()
        if name is not None:
            runs = [run for run in runs if run.session.name == name]
            if not runs:
                with self._share_or_503():
                    self._own_record(name)
                raise NotReady(f"{name} is about to be resumed")
        return status.answer(self.settings.ordinal, [(run.session, run.files) for run in runs], self.waits_for())

    def waits_for(self) -> str | None:
        """Return what keeps the store from being reached, None when nothing does. From memory."""
        return self.store.waits_for if self.store else None

    def gauges(self) -> dict[str, float]:
        """Return the gauges' values by metric name, from memory."""
        runs = self.runs.now()
        files = [run.files.snapshot() for run in runs]
        return {
            names.SESSIONS_ACTIVE: sum(run.discovery is not None for run in runs),
            names.FILES_WAITING: sum(one.waiting for one in files),
            names.FILES_UPLOADING: sum(one.uploading for one in files),
            names.FILES_FAILING: sum(one.failed for one in files),
            names.SHARE_AGE: self.share.age(),
        }

    def _loop(self) -> None:
        while True:
            try:
                with self._lock:
                    self._reconcile()
                self.reconciled = True
            except ShareLost:
                self.share.probe()  # names the cause when another share is mounted
                raise
            except OSError as error:
                self.share.judge(error)
                log.warning(names.RECONCILE_FAILED, extra={"error": str(error)})
            self.runs.wake.wait(RECONCILE)
            self.runs.wake.clear()

    def _reconcile(self) -> None:
        records = self.records.all()
        there = records.sessions.keys() | records.unreadable
        for run in [run for name, run in self.runs.items() if name not in there]:
            # Only a stopped session loses its record, by the sweeper; otherwise this is another share (I6).
            if run.session.state is not State.STOPPED:
                raise ShareLost(f"the record of session {run.session.name} is gone from the share")
            self.runs.leave(run)  # a second process of this ordinal has swept it (I9)
        try:
            count: int | None = self.replicas.count()
        except ReplicasUnknown:
            count = None
        for record in records.sessions.values():
            if record.owner == self.settings.ordinal:
                self._own(record, names.SESSION_RESUMED)
            elif count and record.owner >= count and rank(record.name, count)[0] == self.settings.ordinal:
                adopted = replace(record, owner=self.settings.ordinal)
                self.records.replace(adopted)
                self._own(adopted, names.SESSION_ADOPTED)
            elif record.name in self.runs:
                self.runs.leave(self.runs[record.name])

    def _own(self, record: Session, event: str) -> None:
        """Reconcile one session of this shard with its record."""
        run = self.runs.get(record.name)
        if run and run.session != record:  # another process changed the record, which decides
            self.runs.leave(run)
            run = None
        run = run or self.runs.launch(record, event)
        if run.discovery and run.session.state is State.DRAINING and run.discovery.drained():
            run.discovery.stop()
            self.runs.stopped(run)

    def owned(self) -> dict[str, Owned]:
        """Return the sessions of this shard, from memory; for the sweeper."""
        return {
            run.session.name: Owned(run.session.name, run.files, run.session.state is State.STOPPED)
            for run in self.runs.now()
        }

    def swept(self, name: str) -> None:
        """Remove a stopped session of which nothing is left, if the record says stopped too. Raises OSError."""
        with self._lock:
            run, record = self.runs.get(name), self.records.get(name)
            if run and record and record.state is State.STOPPED and record.owner == self.settings.ordinal:
                self.runs.forget(name)

    @contextmanager
    def reopen(self, name: str) -> Iterator[Inventory | None]:
        """Yield the inventory of the run that takes a file back; a drained session drains again. Raises OSError.

        None when the session is not of this shard any more. Starts, stops and the loop wait until the block ends.
        """
        with self._lock:
            run = self.runs.get(name)
            if run and run.session.state is State.STOPPED and run.session.drained:
                with self.runs.reopened(run) as files:
                    yield files
            else:
                yield run.files if run else None

    @contextmanager
    def _share_or_503(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self.share.judge(error)
            raise NotReady(f"the share cannot be used now: {error.strerror}") from error


def _made(folder: Path) -> bool:
    """Make a folder; True when it was not there, so that nobody can have given a claim back in it. Raises OSError."""
    try:
        folder.mkdir()
    except FileExistsError:
        if not folder.is_dir():
            raise
        return False
    return True


def _ended(run: Run, wanted: State) -> Ended:
    """Return the answer to a stop. Raises NotReady when another process changed the record first."""
    if run.session.state is not wanted:
        raise NotReady(f"the record of {run.session.name} was changed elsewhere at the same moment")
    return status.ended(run.session)

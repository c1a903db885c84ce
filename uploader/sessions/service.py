"""The sessions of this shard: start, stop, status, and the loop that reconciles them with their records.

One code path serves start-up, adoption and recovery: every RECONCILE seconds each record is read, and its session
brought to the state there (level-triggered, as Kubernetes' controllers are).
"""

import logging
import stat
import threading
import time
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
from uploader.errors import (
    AlreadyActive,
    BadRequest,
    NotOwner,
    NotReady,
    NotRunning,
    ShardFull,
    ShareLost,
    UnknownFile,
    UnknownSession,
)
from uploader.naming import check_sendable
from uploader.session import Session, State, new_name, now
from uploader.sessions import ending, files, status
from uploader.sessions.give_back import give_back
from uploader.sessions.records import Records
from uploader.sessions.results import Place, Results
from uploader.sessions.runs import Run, Runs
from uploader.settings import Settings
from uploader.share.destination import Destination
from uploader.share.mount import Share
from uploader.share.paths import opened
from uploader.share.scan import scan
from uploader.sweep.completed import Completed
from uploader.sweep.owned import Owned
from uploader.sweep.seal import Sealed
from uploader.telemetry import instruments, names
from uploader.telemetry.text import shown
from uploader.thread import spawn
from uploader.web.openapi.models import Ended, FilesQuery, Retried, ShardStatus, Started, Status
from uploader.web.openapi.results import FilePage, Result, ResultPage

log = logging.getLogger(__name__)
CLEAN = 600.0  # seconds between two looks for results that are too old
UNREAD = "the records of the sessions have not been read yet"
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
        completed: Completed,
    ) -> None:
        self.settings = settings
        self.share = share
        self.records = records
        self.replicas = replicas
        self.completed = completed
        self.results = Results(share)
        self.runs = Runs(settings, share, records, watch, backlog, completed.receipts)
        self._clean = 0.0  # when old results are looked for again, monotonic seconds
        self.reconciled = False
        self.unreadable: dict[str, str] = {}  # sessions that cannot be taken up, and why; replaced, never changed
        self.store: Store | None = None
        self.destination: Destination | None = None
        self._lock = threading.RLock()

    def begin(self, store: Store | None = None, destination: Destination | None = None) -> None:
        """Start the loop. `store`: what tells whether the store can be reached; `destination`: where files go."""
        self.store = store
        self.destination = destination
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
        with self._share_or_503():
            self._count_ahead(name)
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

    def _count_ahead(self, name: str | None) -> None:
        """Read the receipts of a session that is about to be taken up, without the lock: a million take seconds."""
        record, run = self.records.get(name) if name else None, self.runs.get(name or "")
        if record and record.owner == self.settings.ordinal and not (run and run.discovery):
            self.completed.receipts.count(record.name)

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
        with self._share_or_503():
            self._count_ahead(name)
        with self._share_or_503(), self._lock:
            record = self._own(name)
            if isinstance(record, Result):
                return status.ended(record)
            if record.state is State.STOPPED:
                return status.stopped(record)
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
                    record = self._own(run.session.name)  # another shard may have adopted it
                    if isinstance(record, Result):
                        return status.ended(record)
                    if self.runs.get(record.name) is run and run.discovery:
                        self.runs.stopped(run, drained=False)
                except OSError:
                    self.runs.leave(run)  # the record still says that the session runs: the loop takes it up again
                    raise
            return _ended(run, State.STOPPED)

    def retry(self, name: str, path: str | None) -> Retried:
        """Let a session's failed files, or one of them, be due at once.

        Raises UnknownSession, UnknownFile, NotOwner, NotReady, and NotRunning: a stopped session tries nothing again.
        """
        run = self.runs.get(name)
        if run is None:
            with self._share_or_503():
                there = self._own(name)
            if isinstance(there, Session) and there.state is not State.STOPPED:
                raise self._resuming(name)
        if run is None or run.discovery is None:
            raise NotRunning(f"{name} has stopped: start it again to have its files tried again")
        due = run.files.retry(path)
        if path is not None and not due:
            raise UnknownFile(f"{name} has no failed file {shown(path)}")
        run.discovery.rescan()
        return Retried(session=name, shard=self.settings.ordinal, files=due)

    def _resuming(self, name: str) -> NotReady:
        reason = self.unreadable.get(name)
        return NotReady(f"{name} cannot be resumed yet: {reason}" if reason else f"{name} is about to be resumed")

    def _own(self, name: str) -> Session | Result:
        """Return the record of a session of this shard, or the result of one that has ended.

        The result is written before the record goes: so it is looked for last.
        """
        record = self.records.get(name)
        if record is None and (result := self.results.get(name)):
            return result
        if record is None:
            raise UnknownSession(f"there is no session {name}")
        if record.owner != self.settings.ordinal:
            raise NotOwner(f"shard {record.owner} owns {name}", shard=record.owner)
        return record

    def status_now(self, name: str | None = None) -> Status | None:
        """Return the status of one session, or of all of this shard, from memory. None: ask `status`.

        Raises NotReady: as long as the records have not been read, no session is no answer.
        """
        runs = self.runs.now()
        if name is not None:
            runs = [run for run in runs if run.session.name == name]
            if not runs:
                return None
        elif not self.reconciled:
            raise NotReady(UNREAD)
        return status.answer(
            self._shard([run.session.name for run in runs]), [(run.session, run.files) for run in runs]
        )

    def _shard(self, running: list[str]) -> ShardStatus:
        room = max(0, self.settings.max_sessions - sum(run.discovery is not None for run in self.runs.now()))
        return status.shard(self.settings.ordinal, running, room, self.destination, self.waits_for(), self.unreadable)

    def waits_for(self) -> str | None:
        """Return what keeps the store from being reached, None when nothing does. From memory."""
        return self.store.waits_for if self.store else None

    def status(self, name: str) -> Status:
        """Return the status of one session; asks the share. Raises UnknownSession, NotOwner, NotReady."""
        if found := self.status_now(name):
            return found
        with self._share_or_503():
            there = self._own(name)
        if isinstance(there, Result):
            return status.of_result(self._shard([]), there)
        raise self._resuming(name)

    def files(self, name: str, asked: FilesQuery) -> FilePage:
        """Return a page of a session's files. Raises BadRequest, UnknownFile, UnknownSession, NotOwner, NotReady."""
        run = self.runs.get(name)
        with self._share_or_503():
            if run and asked.path is not None:
                return files.one(run.files, self.completed, self.share, self.runs.rule(run.session), asked.path)
            if run:
                return files.page(run.files, self.completed, asked.state, asked.after, asked.limit)
            there = self._own(name)
        if isinstance(there, Result):
            return files.left_behind(there, asked.path, asked.state, asked.after, asked.limit)
        raise self._resuming(name)

    def ended(self, limit: int, after: str | None) -> ResultPage:
        """Return a page of the results of all shards, newest first. Raises BadRequest, NotReady."""
        place = None if after is None else Place.read(after)
        with self._share_or_503():
            page = self.results.page(limit, place)
        return ResultPage(results=page.results, next=page.next.text() if page.next else None)

    def gauges(self) -> dict[str, float]:
        """Return the gauges' values by metric name, from memory."""
        runs = self.runs.now()
        files = [run.files.snapshot() for run in runs]
        return {
            names.SESSIONS_ACTIVE: sum(run.discovery is not None for run in runs),
            names.FILES_WAITING: sum(one.waiting for one in files),
            names.FILES_UPLOADING: sum(one.uploading for one in files),
            names.FILES_FAILING: sum(one.failed for one in files),
            names.FILES_OLDEST: max((run.files.oldest() for run in runs), default=0.0),
            names.SHARE_AGE: self.share.age(),
            names.STORE_REACHABLE: float(self.waits_for() is None),
        } | ({} if self.share.free is None else {names.SHARE_FREE: self.share.free})

    def _loop(self) -> None:
        told = ""
        while True:
            try:
                self.reconcile()
                self.reconciled = True
                self._remove_old_results()
                told = ""
            except ShareLost:
                self.share.probe()  # names the cause when another share is mounted
                raise
            except OSError as error:
                self.share.judge(error)
                if told != str(error):
                    log.warning(names.RECONCILE_FAILED, extra={"error": str(error)})
                told = str(error)
            self.runs.wake.wait(RECONCILE)
            self.runs.wake.clear()

    def _remove_old_results(self) -> None:
        if time.monotonic() >= self._clean:
            self.results.remove_old(self.settings.result_retention)
            self._clean = time.monotonic() + CLEAN

    def reconcile(self) -> None:
        """Bring each session of this shard to the state of its record. Raises ShareLost, OSError.

        The receipts of those that are taken up are read first, without the lock. A session whose record or receipts
        cannot be read stops no other (I7); it is shown, and tried again each time.
        """
        failed = dict[str, str]()
        with self._lock:
            new = self._reconcile(failed, launch=False)
        for name in new:
            with self._alone(name, failed):
                self.completed.receipts.count(name)
        if new:
            with self._lock:
                self._reconcile(failed)
        self.unreadable = failed

    @contextmanager
    def _alone(self, name: str, failed: dict[str, str]) -> Iterator[None]:
        """Keep what fails for one session from the others. Raises ShareLost when it is the share that fails."""
        try:
            yield
        except OSError as error:
            self.share.judge(error)
            reason = f"{error.strerror}: {error.filename}" if error.filename else str(error.strerror)
            if name not in self.unreadable.keys() | failed.keys():
                log.error(names.RECORD_UNREADABLE, extra={"session": name, "error": reason})  # noqa: TRY400 no fault of the program
            failed[name] = reason

    def _reconcile(self, failed: dict[str, str], *, launch: bool = True) -> list[str]:
        """Return the sessions that were not taken up because `launch` is False."""
        new = list[str]()
        records = self.records.all()
        for name, error in records.unreadable.items():
            self.share.judge(error)
            failed[name] = str(error.strerror)
        there = records.sessions.keys() | records.unreadable.keys()
        for gone in [run for name, run in self.runs.items() if name not in there]:
            # Only a stopped session loses its record, by the sweeper; otherwise this is another share (I6).
            if gone.session.state is not State.STOPPED:
                raise ShareLost(f"the record of session {gone.session.name} is gone from the share")
            self.runs.leave(gone)  # a second process of this ordinal has swept it (I9)
        try:
            count: int | None = self.replicas.count()
        except ReplicasUnknown:
            count = None
        for record in records.sessions.values():
            if record.name in failed:
                continue
            with self._alone(record.name, failed):
                if self._taken(record, count, launch=launch):
                    new.append(record.name)
        return new

    def _taken(self, record: Session, count: int | None, *, launch: bool) -> bool:
        """Bring one session to the state of its record; True when that needs `launch`. Raises OSError."""
        me, run = self.settings.ordinal, self.runs.get(record.name)
        adopted = count and record.owner >= count and rank(record.name, count)[0] == me
        if record.owner != me and not adopted:
            if run:
                self.runs.leave(run)
        elif not launch and not (run and run.session == record):
            return True
        elif adopted:
            ours = replace(record, owner=me)
            self.records.replace(ours)
            self._follow(ours, names.SESSION_ADOPTED)
        else:
            self._follow(record, names.SESSION_RESUMED)
        return False

    def _follow(self, record: Session, event: str) -> None:
        """Reconcile one session of this shard with its record."""
        run = self.runs.get(record.name)
        if run and run.session != record:  # another process changed the record, which decides
            self.runs.leave(run)
            run = None
        run = run or self.runs.launch(record, event)
        if run.discovery and run.session.state is State.DRAINING and run.discovery.drained():
            run.discovery.stop()
            self.runs.stopped(run, drained=True)

    def owned(self) -> dict[str, Owned]:
        """Return the sessions of this shard, from memory; for the sweeper."""
        return {run.session.name: Owned(run.session, run.files) for run in self.runs.now()}

    def swept(self, name: str, sealed: Sealed) -> None:
        """End a stopped session of which nothing is left, if the record says stopped too. Raises OSError.

        Its result first, then its journals, then its record: whoever is killed in between leaves a stopped session,
        and whoever comes next finds the journals, or the result, and writes none that knows less.
        """
        with self._lock:
            run, record = self.runs.get(name), self.records.get(name)
            if not run or not record or record.state is not State.STOPPED or record.owner != self.settings.ordinal:
                return
            if self.completed.receipts.of(name).sizes() != sealed.sizes:
                return  # more were written: the next walk seals all of them
            result = self.results.get(name)
            if result is None or result.began != record.started_at or sealed.sizes:
                result = self._result(run, sealed)
                self.results.write(result)
            if self.completed.receipts.forget(name, sealed.sizes):
                self.runs.forget(name)
                instruments.ended(drained=result.drained, left_behind=result.files.left_behind)

    def _result(self, run: Run, sealed: Sealed) -> Result:
        try:
            with opened(self.share.fd, run.session.name) as top:
                return ending.result(run, sealed, scan(top, self.runs.rule(run.session)))
        except FileNotFoundError:
            self.share.probe()  # a lost share is not a folder that somebody has removed (I6)
            return ending.result(run, sealed, ())

    @contextmanager
    def reopen(self, name: str) -> Iterator[Inventory | None]:
        """Yield the inventory of the run that takes a file back; a drained session drains again. Raises OSError.

        None when the session is not of this shard any more. Starts, stops and the loop wait until the block ends.
        """
        self._count_ahead(name)
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
        if not stat.S_ISDIR(folder.lstat().st_mode):
            raise BadRequest(f"{folder.name} on the share is not a folder; it has to be one, or absent") from None
        return False
    return True


def _ended(run: Run, wanted: State) -> Ended:
    """Return the answer to a stop. Raises NotReady when another process changed the record first."""
    if run.session.state is not wanted:
        raise NotReady(f"the record of {run.session.name} was changed elsewhere at the same moment")
    return status.stopped(run.session)

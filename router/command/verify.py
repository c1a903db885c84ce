"""Compares a session's receipts with the store, blob by blob."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

from router.command.service import Service
from uploader.errors import Declined

Fields = dict[str, Any]
AT_ONCE = 64  # questions to the store in flight


class Store(Protocol):
    """What verify asks of the store."""

    container: str

    def verdict(self, receipt: Fields) -> str:
        """Return what has become of a receipt's blob: "fine", "missing", or how it was changed."""

    def receipts(self, blob: str) -> Iterator[Fields] | None:
        """Return a session's sealed receipts, None when there is no such blob."""


@dataclass(frozen=True)
class Wrong:
    """A receipt whose blob is not what it says."""

    path: str
    blob: str
    verdict: str
    committed: str


@dataclass
class Verified:
    """What was compared. `superseded`: a later file of the session has the same blob, and that one was compared.

    `expected`: the files that the session's result counts, None while the session goes on.
    """

    session: str
    container: str
    receipts: int = 0
    fine: int = 0
    superseded: int = 0
    missing: int = 0
    changed: int = 0
    expected: int | None = None
    wrong: list[Wrong] = field(default_factory=list)

    @property
    def good(self) -> bool:
        """Whether every file of the session is in the store as its receipt says."""
        return not self.wrong and self.expected in {None, self.receipts}

    def fields(self) -> Fields:
        """Return it as JSON has it."""
        return asdict(self)


def verify(service: Service, store: Store, session: str, seen: Callable[[int], None] = lambda _: None) -> Verified:
    """Compare; `seen` is told how many receipts were. Memory: what is wrong. Raises CommandEnds.

    The receipts come from the store when the session has ended, and from the service while it goes on.
    """
    (one,) = service.get("status", session=session)["sessions"]
    done = Verified(session, store.container)
    result = one["result"]
    if result:
        done.expected = result["files"]["sent"]

    def receipts() -> Iterable[Fields]:
        if not result:
            return _living(service, session)
        found = store.receipts(result["receipts"]) if result["receipts"] else iter(())
        if found is None:
            raise Declined({"code": "no-receipts", "detail": f"{result['receipts']} is not in {store.container}"})
        return found

    wrong = []
    for receipt, verdict in _verdicts(receipts(), store):
        done.receipts += 1
        if verdict == "fine":
            done.fine += 1
        else:
            wrong.append(Wrong(receipt["path"], receipt["blob"], verdict, receipt["committed"]))
        seen(done.receipts)
    for one in _last(wrong, receipts()) if wrong else ():
        done.missing += one.verdict == "missing"
        done.changed += one.verdict != "missing"
        done.wrong.append(one)
    done.superseded = len(wrong) - len(done.wrong)
    return done


def _living(service: Service, session: str) -> Iterator[Fields]:
    for one in service.pages("files", "files", session=session, state="done"):
        if one["receipt"]:
            yield one["receipt"]


def _verdicts(receipts: Iterable[Fields], store: Store) -> Iterator[tuple[Fields, str]]:
    """Yield each receipt with its verdict, in their order, AT_ONCE questions ahead."""
    ahead: deque[tuple[Fields, Future[str]]] = deque()
    with ThreadPoolExecutor(AT_ONCE) as pool:
        for receipt in receipts:
            ahead.append((receipt, pool.submit(store.verdict, receipt)))
            if len(ahead) == AT_ONCE:
                first, verdict = ahead.popleft()
                yield first, verdict.result()
        while ahead:
            first, verdict = ahead.popleft()
            yield first, verdict.result()


def _last(wrong: list[Wrong], receipts: Iterable[Fields]) -> Iterator[Wrong]:
    """Yield those that are their blob's newest: an older content was replaced by the session itself."""
    newest = dict.fromkeys((one.blob for one in wrong), "")
    for receipt in receipts:
        if receipt["blob"] in newest:
            newest[receipt["blob"]] = max(newest[receipt["blob"]], receipt["committed"])
    yield from (one for one in wrong if one.committed == newest[one.blob])

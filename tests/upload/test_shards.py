"""Uploads in the whole program: what a process does about faults, and two that both believe that they own a session."""

from itertools import count
from pathlib import Path
from typing import Any

from tests.endpoint.faults import Do, Refuse, Reset
from tests.endpoint.request import Operation
from tests.endpoint.store import Store
from tests.support import programs
from tests.support.blobs import CONTAINER
from tests.support.programs import KEY, wait_for
from tests.upload.shards import MIB, noise, shard


def test_a_file_that_is_written_while_it_is_sent_goes_back_and_is_sent_whole_when_it_has_settled(
    tmp_path: Path,
) -> None:
    """I2 in the program: nothing is committed before, and the blob is the file as its writer left it."""
    with shard(tmp_path, block_size=MIB, memory=8 * MIB, settle=1) as one:
        folder = one.session()
        first, more = noise(6 * MIB), noise(1000)

        def write_on(_: Store) -> None:
            with (folder / "a.bin.processing").open("ab") as file:
                file.write(more)

        one.endpoint.faults.add(Do(write_on), Operation.PUT_BLOCK, skip=3)
        one.arrive("run/a.bin", first)
        wait_for(lambda: one.events("file.given_back"), "the claim to be given back")
        assert not one.blobs()
        one.stored("run/a.bin")
        assert one.content("run/a.bin") == first + more
        assert len(one.endpoint.log.of(Operation.PUT_BLOCK_LIST)) == 1


def test_all_sorts_of_trouble_at_once(tmp_path: Path) -> None:
    """Resets, storms, lost replies, expired blocks and a refused token: every file arrives whole and is completed."""
    with shard(tmp_path, block_size=MIB, memory=8 * MIB, retention=3600) as one:
        faults = one.endpoint.faults
        writes = (Operation.PUT_BLOB, Operation.PUT_BLOCK, Operation.PUT_BLOCK_LIST)
        for skip in range(0, 60, 12):
            faults.add(Reset(), *writes, skip=skip)
            faults.add(Reset(after_effect=True), *writes, skip=skip + 3)
            faults.add(Refuse(503, retry_after=0.1), *writes, skip=skip + 5, times=2)
        faults.add(Refuse(403, "AuthenticationFailed"), *writes, skip=10)
        faults.add(Do(Store.expire), Operation.PUT_BLOCK_LIST, skip=1)
        contents = {f"run/{number}.bin": noise(number * 47) for number in range(40)}
        contents |= {f"run/large-{number}.bin": noise(5 * MIB + number) for number in range(5)}
        one.session()
        for name, content in contents.items():
            one.arrive(name, content)
        wait_for(lambda: one.left() and all(name.endswith(".completed") for name in one.left()), "completion", 200)
        assert {name: one.content(name) for name in contents} == contents
        assert one.events("file.failed")
        assert KEY not in one.server.log()


def test_a_container_that_is_gone_and_cannot_be_made_ends_the_process(tmp_path: Path) -> None:
    """The process exits with 1 and names the container and the refusal (A8); the files stay."""
    with shard(tmp_path) as one:
        one.session()
        one.endpoint.store.drop(CONTAINER)
        one.endpoint.faults.add(Refuse(403, "AuthorizationFailure"), Operation.CREATE_CONTAINER, times=100)
        one.arrive("run/a.bin", noise(1000))
        assert one.server.wait() == 1
        reason = one.events("process.ends")[-1]["reason"]
        assert "'uploads'" in reason
        assert "403 AuthorizationFailure" in reason
        assert one.left() == ["a.bin.processing"]


def test_two_processes_of_one_ordinal(tmp_path: Path) -> None:
    """I9: both own the session. Work may be wasted; nothing is lost, mixed or replaced by older content."""
    settings: dict[str, Any] = {"block_size": MIB, "memory": 8 * MIB, "retention": 0.2}
    with shard(tmp_path, **settings) as one:
        (tmp_path / "second").mkdir()
        other = programs.shard(tmp_path / "second", one.root, one.endpoint.connection_string, **settings)
        other.up()
        try:
            one.session()
            wait_for(lambda: "session.resumed" in other.log(), "the second process to take the session too")
            one.endpoint.faults.latency = 0.01
            contents: dict[str, bytes] = {}
            for version in count():  # names come again while they are sent, until each of the two has done something
                taken = len(one.endpoint.log.of(Operation.PUT_BLOB))
                for number in range(25):
                    name = f"run/{number}.bin"
                    contents[name] = noise(3 * MIB + version if number % 8 == 0 else 1000 + version)
                    one.arrive(name, contents[name])
                if version >= 2 and all("file.completed" in log for log in (one.server.log(), other.log())):
                    break
                wait_for(lambda: len(one.endpoint.log.of(Operation.PUT_BLOB)) >= taken + 10, "some of them")  # noqa: B023
            wait_for(lambda: one.left() == [], "an empty folder", 200)
            assert {name: one.content(name) for name in contents} == contents
            assert other.process is not None
            assert other.process.poll() is None
        finally:
            other.kill()

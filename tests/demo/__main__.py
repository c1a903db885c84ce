"""make demo: files on a share, two shards and a router, a blob store; then every blob is compared with its source."""

import argparse
import contextlib
import shutil
import signal
import sys
import tempfile
import time
from concurrent.futures import Future, ThreadPoolExecutor
from hashlib import md5
from pathlib import Path

from azure.storage.blob import ContainerClient

from tests.demo.progress import Progress, amount
from tests.demo.site import Site, files_in, free_ports
from tests.demo.sources import Sources
from tests.support.programs import azurite, wait_for

SESSION = "demo"
CONTAINER = "uploads"
SOON: dict[str, object] = {"settle": 5, "retention": 3, "sweep_interval": 1}
PATIENCE = 120.0  # seconds without progress after which the demo gives up
NEXT = """
What you can do now, in another terminal:

  look at the status page       {url}/
  hand over a file              cp README.md {share}/{session}/
  ask how it is                 curl -sS '{url}/v1/watch/status?session={session}'
  start another session         curl -sS -X POST {url}/v1/watch/start -d '{{"session": "run-42"}}'
  watch everything live         curl -sSN {url}/v1/watch/events
  stop a session                curl -sS -X POST {url}/v1/watch/stop -d '{{"session": "{session}"}}'
  ask a shard itself            curl -sS {shard}/v1/watch/status
  kill a shard                  kill -9 {pid}     (it is started again, as Kubernetes would, and goes on)

The blobs are in container '{container}' of Azurite; for any Azure tool:
  AZURE_STORAGE_CONNECTION_STRING='{connection}'

Ctrl-C ends everything and removes {folder}.
"""


def main() -> int:
    """Run the demo; return the exit code."""
    parser = argparse.ArgumentParser(prog="make demo", description=__doc__)
    parser.add_argument("--once", action="store_true", help="end by itself, with exit code 0 or 1")
    once = parser.parse_args().once
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, _: sys.exit(128 + number))
    folder = Path(tempfile.mkdtemp(prefix="nfs-watch-demo-"))
    done = False
    with contextlib.ExitStack() as stack:
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        try:
            site = _started(folder, stack)
            _upload(site)
            done = True
            if not once:
                _stay(site, folder)
        except KeyboardInterrupt:
            print("\nstopping", flush=True)
            return 0 if done else 130
        except AssertionError as error:
            print(f"\nfailed: {error}", file=sys.stderr)
            return 1
    return 0


def _started(folder: Path, stack: contextlib.ExitStack) -> Site:
    print("starting Azurite, two shards and a router", flush=True)
    port = free_ports(8080)
    connection = stack.enter_context(azurite(folder, port=port + 1))
    site = Site(folder, stack, connection, port, container=CONTAINER, **SOON)
    print(f"  share        {site.share}")
    for number, shard in enumerate(site.shards):
        print(f"  shard {number}      {shard.url}")
    print(f"  router       {site.url}")
    print(f"  status page  {site.url}/", flush=True)
    return site


def _upload(site: Site) -> None:
    """Bring all files into the store; raise AssertionError when a file does not arrive unchanged."""
    sources = Sources(site.share / SESSION)
    total, half = len(sources.files), len(sources.files) // 2
    print(f"writing {total} files ({amount(sources.size)}): one half before the session is started, one while it runs")
    sources.write(0, half)
    answer = site.call("start", session=SESSION)
    print(f"session '{answer['session']}' runs on shard {answer['shard']}", flush=True)
    with ThreadPoolExecutor(1) as writer:
        _follow(site, sources, writer.submit(sources.write, half, total))
    _compare(site, sources)
    wait_for(lambda: not files_in(sources.folder), "the share to be swept", PATIENCE)
    print("and the share is empty: what is in the store was deleted from it", flush=True)


def _follow(site: Site, sources: Sources, writing: "Future[None]") -> None:
    progress, total = Progress(), len(sources.files)
    before, moved = (0, 0), time.monotonic()
    while True:
        status = site.session(SESSION)
        files, size = status.get("files", {}), status.get("bytes", {}).get("uploaded", 0)
        now = (files.get("completed", 0), size)
        if now != before:
            before, moved = now, time.monotonic()
        text = f"{now[0]}/{total} files  {amount(size)} of {amount(sources.size)}"
        progress.show(size, sources.size, f"{text}  {amount(status.get('rate_bytes_per_s', 0))}/s")
        if writing.done():
            writing.result()
        if now[0] == total:
            break
        if time.monotonic() - moved > PATIENCE:
            raise AssertionError(f"nothing moved for {PATIENCE:.0f} s; the last error: {status.get('last_error')}")
        time.sleep(0.1)
    progress.end()


def _compare(site: Site, sources: Sources) -> None:
    """Download every blob and compare its MD5 with that of its source."""
    print("downloading every blob to compare its MD5 with the source's", flush=True)
    progress, wrong, found = Progress(), [], set()
    with ContainerClient.from_connection_string(site.connection, CONTAINER) as container:
        for name in container.list_blob_names(name_starts_with=f"{SESSION}/"):
            digest = md5(usedforsecurity=False)
            for chunk in container.download_blob(name).chunks():
                digest.update(chunk)
            path = name.removeprefix(f"{SESSION}/")
            found.add(path)
            if digest.digest() != sources.digests.get(path):
                wrong.append(path)
            progress.show(len(found), len(sources.digests), f"{len(found)}/{len(sources.digests)} blobs")
    progress.end()
    missing = sorted(sources.digests.keys() - found)
    assert not wrong, f"{len(wrong)} blobs differ from their source: {', '.join(wrong[:5])}"
    assert not missing, f"{len(missing)} files are not in the store: {', '.join(missing[:5])}"
    print(f"all {len(found)} blobs are equal to their source", flush=True)


def _stay(site: Site, folder: Path) -> None:
    shard = site.shards[site.session(SESSION)["shard"]]
    words = {"url": site.url, "share": site.share, "session": SESSION, "shard": shard.url, "pid": shard.pid}
    print(NEXT.format(**words, container=CONTAINER, connection=site.connection, folder=folder), flush=True)
    while True:
        time.sleep(1)
        for name, program in site.ended().items():
            code = program.wait()
            program.start()
            print(f"{name} ended with {code}; started again with process id {program.pid}", flush=True)


if __name__ == "__main__":
    sys.exit(main())

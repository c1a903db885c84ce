"""The command nfs-watch: what its arguments mean, and its exit codes (ABOUT)."""

import os
import sys
from collections.abc import Iterable
from enum import StrEnum
from itertools import islice
from typing import Annotated, Any, NoReturn

import orjson
import typer

from router.command import text
from router.command.service import Service
from router.command.waiting import Show, kept
from router.command.waiting import wait as waited
from uploader.errors import CommandEnds
from uploader.session import new_name
from uploader.version import VERSION

Fields = dict[str, Any]
PATIENCE = 30.0  # seconds
ABOUT = (
    "Starts, stops and follows the sessions of nfs-watch, has failed files tried again, "
    "and compares receipts with the store. "
    "Exit codes: 0 all sent; 1 something left behind, or not in the store as its receipt says; "
    "2 wrong usage; 3 no usable answer; 4 the service said no; 130 Ctrl-C."
)
app = typer.Typer(help=ABOUT, no_args_is_help=True, rich_markup_mode=None, pretty_exceptions_enable=False)

Name = Annotated[str, typer.Argument(metavar="SESSION", show_default=False)]
Json = Annotated[bool, typer.Option("--json", help="Write JSON, for programs.")]
Wait = Annotated[bool, typer.Option("--wait", help="Wait until the session has ended.")]
Limit = Annotated[int | None, typer.Option(min=1, help="At most so many; without it all of them.")]


class FileState(StrEnum):
    """The states of a file."""

    WAITING = "waiting"
    UPLOADING = "uploading"
    FAILED = "failed"
    KEPT = "kept"
    DONE = "done"


class Run:
    """One run of the command: where the service is, and whether errors are written as JSON."""

    url = ""
    patience: float = PATIENCE
    json = False

    def service(self, *, json: bool) -> Service:
        """Return the service; from here on errors are written as the command's options say."""
        self.json = json
        return Service(self.url, self.patience)


run = Run()


def _address() -> str:
    """Return where a router or shard on this machine, or in this pod, listens."""
    return os.environ.get("NFS_WATCH_URL") or f"http://127.0.0.1:{os.environ.get('NFS_WATCH_PORT') or 8080}"


def _version(asked: bool) -> None:  # noqa: FBT001 as typer calls it
    if asked:
        print(f"nfs-watch {VERSION}")
        raise typer.Exit


@app.callback()
def options(
    *,
    url: Annotated[
        str | None,
        typer.Option(help="The router (or a shard); else NFS_WATCH_URL, else http://127.0.0.1:NFS_WATCH_PORT or 8080."),
    ] = None,
    patience: Annotated[
        float, typer.Option(min=0, help="Seconds to go on without an answer. wait: until it has answered once.")
    ] = PATIENCE,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Read the options that stand before the call."""
    del version
    run.url, run.patience = url or _address(), patience


@app.command()
def start(
    *,
    session: Annotated[str | None, typer.Argument(metavar="[SESSION]", show_default=False)] = None,
    extension: Annotated[
        list[str] | None, typer.Option("--extension", "-e", help="Send these only (.bin); may be repeated.")
    ] = None,
    shard: Annotated[int | None, typer.Option(min=0, help="Run it on this shard and no other.")] = None,
    wait: Wait = False,
    json: Json = False,
) -> None:
    """Start a session: the folder of this name below the share's root."""
    fields: Fields = {"session": session or new_name()}
    fields |= {"extensions": extension} if extension else {}
    fields |= {} if shard is None else {"shard": shard}
    service = run.service(json=json)
    begun = service.start(fields)
    if json:
        _json(begun)
    else:
        print(f"{begun['session']} runs on shard {begun['shard']}\nfolder: {begun['folder']}", flush=True)
    if wait:
        _follow(service, [begun["session"]])


@app.command()
def stop(
    *,
    session: Name,
    at_once: Annotated[
        bool, typer.Option("--at-once", help="Leave on the share what has not been sent; else it is finished first.")
    ] = False,
    wait: Wait = False,
    json: Json = False,
) -> None:
    """Stop a session: finish the files that are there, then end it."""
    service = run.service(json=json)
    stopped = service.stop(session, drain=not at_once)
    if json:
        _json(stopped)
    else:
        print(f"{stopped['session']} is {stopped['state']} on shard {stopped['shard']}", flush=True)
    if wait:
        _follow(service, [session])


@app.command()
def retry(
    *,
    session: Name,
    path: Annotated[str | None, typer.Option(help="Only this file, relative to the session's folder.")] = None,
    json: Json = False,
) -> None:
    """Have the files that failed tried again at once."""
    begun = run.service(json=json).retry(session, path)
    if json:
        _json(begun)
    else:
        print(f"{begun['session']}: {begun['files']} files are tried at once on shard {begun['shard']}")


@app.command()
def status(
    *,
    session: Annotated[str | None, typer.Argument(metavar="[SESSION]", show_default=False)] = None,
    json: Json = False,
) -> None:
    """Show all sessions and shards, or one session."""
    service = run.service(json=json)
    found = service.get("status", **({"session": session} if session else {}))
    if json:
        _json(found)
        return
    _lines(text.sessions(found))
    if session and found["sessions"][0]["result"]:
        _lines(["", *text.summary(found["sessions"][0]["result"])])


@app.command()
def wait(
    *, session: Annotated[list[str], typer.Argument(metavar="SESSION...", show_default=False)], json: Json = False
) -> None:
    """Wait until sessions have ended, and say what became of them."""
    _follow(run.service(json=json), session)


@app.command()
def files(
    *,
    session: Name,
    state: Annotated[FileState | None, typer.Option(help="Only files in this state.")] = None,
    path: Annotated[str | None, typer.Option(help="Only this file, relative to the session's folder.")] = None,
    limit: Limit = None,
    json: Json = False,
) -> None:
    """List the files of a session (JSON: one a line)."""
    service = run.service(json=json)
    query = {"session": session} | ({"state": state.value} if state else {}) | ({"path": path} if path else {})
    found = islice(service.pages("files", "files", **query), limit)
    _list(found, text.files, json=json)


@app.command()
def results(*, limit: Limit = None, json: Json = False) -> None:
    """List the sessions that have ended, newest first (JSON: one a line)."""
    _list(islice(run.service(json=json).pages("results", "results"), limit), text.results, json=json)


@app.command()
def verify(*, session: Name, json: Json = False) -> None:
    """Compare a session's receipts with the store, blob by blob.

    The store is named by a shard's variables: NFS_WATCH_CONTAINER, and NFS_WATCH_ACCOUNT_URL or
    AZURE_STORAGE_CONNECTION_STRING.
    """
    service = run.service(json=json)
    from router.command.store import Store  # noqa: PLC0415 azure takes a second on a small device
    from router.command.verify import verify as compared  # noqa: PLC0415

    done = compared(service, Store(), session, _counted)
    if json:
        _json(done.fields() | {"good": done.good})
    else:
        _lines(text.verified(done.fields()))
    raise typer.Exit(0 if done.good else 1)


def _counted(number: int) -> None:
    if sys.stderr.isatty() and not run.json:
        print(f"\r{number} compared", end="\r", file=sys.stderr, flush=True)


def _follow(service: Service, names: list[str]) -> NoReturn:
    """Wait for the sessions' end, say what became of them, and exit."""
    try:
        last = waited(service, names, _show())
    except KeyboardInterrupt:
        named = " ".join(names)
        print(f"\n{named}: it goes on; nfs-watch wait {named} follows it again", file=sys.stderr)
        raise typer.Exit(130) from None
    left = False
    for one in last:
        if result := one["result"]:
            left |= result["files"]["left_behind"] > 0
            if not run.json:
                _lines(text.summary(result))
            continue
        left = True
        stay = kept(service, one)
        if not run.json:
            _lines(text.unended(one, stay))
    raise typer.Exit(1 if left else 0)


def _show() -> Show:
    from router.command.bars import Bars, JsonLines, Lines  # noqa: PLC0415 rich is for waiting only

    if run.json:
        return JsonLines()
    return Bars() if sys.stderr.isatty() else Lines()


def _list(found: Iterable[Fields], shown: Any, *, json: bool) -> None:  # noqa: ANN401 a function of `text`
    if not json:
        _lines(shown(found))
        return
    for one in found:
        _json(one)


def _json(fields: Fields) -> None:
    print(orjson.dumps(fields).decode(), flush=True)


def _lines(lines: Iterable[str]) -> None:
    for line in lines:
        print(line)
    sys.stdout.flush()


def main() -> None:
    """Run the command."""
    try:
        app(prog_name="nfs-watch")
    except CommandEnds as error:
        if run.json:
            problem = getattr(error, "problem", {"code": error.code, "detail": str(error)})
            print(orjson.dumps(problem).decode(), file=sys.stderr)
        else:
            print(f"nfs-watch: {text.clean(error)}", file=sys.stderr)
        sys.exit(error.exit_code)
    except BrokenPipeError:  # the reader has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)


if __name__ == "__main__":
    main()

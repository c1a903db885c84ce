"""A guest kernel with a real NFS server and clients (Debian's user-mode-linux), which runs some of the cases."""

import json
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.support.programs import TOP

PROGRAMS = ("gcc", "linux.uml", "exportfs", "rpc.nfsd", "mount.nfs4", "rpcbind", "modprobe", "ip")
CASE, WHOLE = 1500, 3000  # seconds for a case, and for a guest with all of its cases; both bound a hang only


class Guest:
    """One boot of the guest; `reports` yields pytest's reports of the cases as they come."""

    def __init__(self, items: list[str]) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="nfs-guest-", ignore_cleanup_errors=True)
        self.work = Path(self._folder.name)  # removed also when there is no boot, for want of a library
        self.host = self.work / "host"
        self.host.mkdir()
        (self.work / "guest").mkdir()
        (self.host / "items").write_text("\0".join(items))
        words = {"NFS_WORK": self.work, "NFS_PROJECT": TOP, "NFS_TIMEOUT": CASE}
        if sizes := os.environ.get("NFS_SIZES"):
            words["NFS_SIZES"] = sizes
        kernel = "mem=4G rootfstype=hostfs rootflags=/ rw quiet con=null con0=fd:0,fd:1"
        argv = ["linux.uml", *kernel.split(), f"init={Path(__file__).parent / 'init'}"]
        argv += [f"{name}={value}" for name, value in words.items()]
        with (self.work / "kernel").open("wb") as output:
            env = {**os.environ, "LD_PRELOAD": str(self._registers())}
            # A session of its own: the kernel's helper processes can be ended with it, by its id.
            self.process = subprocess.Popen(
                argv, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True, env=env
            )

    def _registers(self) -> Path:
        """Build the library that lets the kernel run on processors with more registers than it knows."""
        library = self.work / "xstate.so"
        argv = ["gcc", "-O2", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-o", str(library)]
        subprocess.run([*argv, str(Path(__file__).parent / "xstate.c")], check=True)
        return library

    def reports(self) -> Iterator[dict[str, Any]]:
        """Yield each report until the guest has ended; a guest that hangs is killed."""
        end = time.monotonic() + WHOLE
        path, read = self.host / "reports", 0
        while True:
            off = self.process.poll() is not None
            text = path.read_bytes()[read:] if path.exists() else b""
            for line in text.splitlines(keepends=True):
                if line.endswith(b"\n"):
                    read += len(line)
                    yield json.loads(line)
            if off:
                return
            if time.monotonic() > end:
                self.kill()
            time.sleep(0.1)

    def kill(self) -> None:
        """Kill the guest, whatever hangs inside."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()

    def last_words(self) -> str:
        """Return the end of the guest's output."""
        texts = [
            path.read_text(errors="replace") for path in (self.work / "kernel", self.host / "console") if path.exists()
        ]
        return "\n".join(text[-1500:] for text in texts)

    def close(self) -> None:
        """Kill the guest and remove its folder."""
        self.kill()
        self._folder.cleanup()

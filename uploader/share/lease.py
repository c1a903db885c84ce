"""Does anybody have a file open for writing? A read lease tells: the kernel grants none while somebody has.

That is who holds a descriptor for writing, or a shared mapping after its descriptor was closed; with a kernel's NFS
server on this machine, its clients too. fcntl(2), F_SETLEASE. Only file systems of this machine keep leases: an NFS
client refuses one whenever it has no delegation, so there the answer says nothing (see filesystem.py).
"""

import ctypes
import fcntl
import signal

OPEN = "open for writing"
_libc = ctypes.PyDLL(None)  # keeps the interpreter's lock: with many threads it might come back only after 5 ms


def held_open(fd: int) -> bool | None:
    """Tell whether somebody can write to this file, which is open for reading only; None when nobody can tell.

    None: neither its owner nor CAP_LEASE (EACCES), or a file system without leases (EINVAL). A lease that is granted
    is given back at once: whoever opens the file for writing in between waits for that long.
    """
    try:
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_RDLCK)
    except BlockingIOError:
        return True
    except OSError:
        return None
    _libc.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    return False


def ignore_signal() -> None:
    """Ignore what the kernel sends the holder of a lease that somebody waits for: by default it ends the process."""
    signal.signal(signal.SIGIO, signal.SIG_IGN)

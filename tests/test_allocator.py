"""What was freed goes back to the system."""

import subprocess
import sys

CODE = """
import ctypes, threading
from uploader import allocator

allocator.frugal()
bytearray(8 << 20)
together = threading.Barrier(8)
pins = []

def work():
    together.wait()
    block = bytearray(8 << 20)
    pins.append(bytearray(100_000))  # behind the block, which leaves a gap if it was cut from an arena
    together.wait()
    del block
    together.wait()

threads = [threading.Thread(target=work) for _ in range(8)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()

class Info(ctypes.Structure):
    _fields_ = [(name, ctypes.c_size_t) for name in "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost".split()]

libc = ctypes.CDLL(None)
libc.mallinfo2.restype = Info
print(libc.mallinfo2().fordblks, flush=True)
libc.fopen.restype = ctypes.c_void_p
libc.malloc_info(0, ctypes.c_void_p(libc.fopen(b"/dev/stdout", b"w")))
libc.fflush(None)
"""


def test_blocks_that_threads_have_freed_are_not_kept() -> None:
    """Eight threads use 8 MiB each at the same time; by itself glibc keeps that, in an arena for each of them."""
    ran = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True)
    assert int(ran.stdout.partition("\n")[0]) < 4 << 20, "bytes that are free and not given back"
    assert 0 < ran.stdout.count("<heap ") <= 2

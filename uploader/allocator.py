"""The C library's allocator, for a program whose many threads each use a block now and then."""

import ctypes

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_ARENA_MAX = -1, -3, -8  # glibc's malloc.h
MIB = 2**20


def frugal() -> None:
    """Have memory that was freed go back to the system. Before the first thread is started.

    glibc makes arenas for threads that allocate at the same time, 8 for each core, and keeps what was freed in them; a
    block above a threshold is mapped by itself and leaves no gap. Thresholds that are set no longer grow with what is
    freed; 128 KiB, from which they start, would cost system calls for each block. Other C libraries have no mallopt.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt:
        mallopt(M_ARENA_MAX, 2)
        mallopt(M_MMAP_THRESHOLD, 2 * MIB)
        mallopt(M_TRIM_THRESHOLD, MIB)

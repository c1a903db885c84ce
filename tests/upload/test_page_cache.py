"""The device has other work: what was read to be sent does not stay in its page cache."""

import ctypes
import mmap
import os
from pathlib import Path

import pytest

from tests.endpoint.request import Operation
from tests.endpoint.server import Endpoint
from tests.need import absent
from tests.support.blobs import ServiceStore
from tests.upload.sending import MIB, sending, taken
from uploader.blob.checksum import crc64
from uploader.sweep.verdict import _is

SIZE = 500 * MIB
LEAST = 64 * MIB
_libc = ctypes.CDLL(None, use_errno=True)
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]


def resident(path: Path) -> int:
    """Return how many bytes of this very file are in the page cache: mincore(2), whatever other programs do."""
    size = path.stat().st_size
    fd = os.open(path, os.O_RDONLY)
    try:
        at = _libc.mmap(None, size, mmap.PROT_READ, mmap.MAP_SHARED, fd, 0)
        assert at not in {None, ctypes.c_void_p(-1).value}, os.strerror(ctypes.get_errno())
        pages = (ctypes.c_ubyte * (-(-size // mmap.PAGESIZE)))()
        assert _libc.mincore(ctypes.c_void_p(at), ctypes.c_size_t(size), pages) == 0, os.strerror(ctypes.get_errno())
        _libc.munmap(ctypes.c_void_p(at), ctypes.c_size_t(size))
    finally:
        os.close(fd)
    return sum(page & 1 for page in bytes(pages)) * mmap.PAGESIZE


@pytest.fixture
def cold(tmp_path: Path) -> Path:
    """Give a file of 500 MB that is not in the page cache, on a file system whose page cache can be given back."""
    path = tmp_path / "a.bin"
    with path.open("wb") as file:
        file.truncate(SIZE)
    with path.open("rb") as file:
        file.read(MIB)
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    if resident(path):
        absent("the file system of the tests' folder keeps its pages whatever is asked")
    return path


def test_a_file_that_was_sent_has_left_the_page_cache(cold: Path) -> None:
    """Half a gigabyte goes through it, and less than 64 MiB are left."""
    with (
        Endpoint(ServiceStore(keep_bytes=False)) as endpoint,
        sending(cold.parent, endpoint, block_size=8 * MIB, memory=128 * MIB, content_md5=False) as engine,
    ):
        engine.upload(cold)
        assert endpoint.log.received(Operation.PUT_BLOCK) == SIZE
        print(f"resident afterwards: {resident(cold) / MIB:.1f} MiB")
        assert resident(cold) < LEAST


def test_a_file_that_is_found_in_the_store_has_left_the_page_cache(cold: Path) -> None:
    """A try again reads it whole to compare it with the blob."""
    with (
        Endpoint(ServiceStore(keep_bytes=False)) as endpoint,
        sending(cold.parent, endpoint, block_size=8 * MIB, memory=128 * MIB, content_md5=False) as engine,
    ):
        engine.upload(cold)
        sent = endpoint.log.received(Operation.PUT_BLOCK)
        engine.upload(cold, retried=True)
        assert endpoint.log.received(Operation.PUT_BLOCK) == sent
        assert resident(cold) < LEAST


def test_a_file_that_the_sweeper_compares_has_left_the_page_cache(cold: Path) -> None:
    """After a restart it reads what is `.completed`, perhaps many gigabytes."""
    with taken(cold) as file:
        assert _is(file, SIZE, crc64(bytes(SIZE)))
        assert resident(cold) < LEAST

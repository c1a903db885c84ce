"""Settings: read once from the environment, checked, then passed down. Units are bytes and seconds."""

import os
import re
import socket
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, SecretStr, field_validator, model_validator
from pydantic_settings import NoDecode

from uploader.environment import PREFIX, Environment, read
from uploader.errors import BadConfiguration
from uploader.naming import check_sendable, check_suffixes, objection
from uploader.session import check_extensions

MIB = 1024 * 1024
# Put Block takes at most 4,000 MiB: learn.microsoft.com/rest/api/storageservices/put-block
MAX_BLOCK = 4000 * MIB
_ORDINAL = re.compile(r".*-(\d+)")


class StoreSettings(Environment):
    """Where the blobs are, and how they are reached: all that the command's `verify` needs."""

    container: str = Field(pattern=r"^[a-z0-9](?:-?[a-z0-9]){2,62}$")
    account_url: str | None = Field(default=None, pattern=r"^https?://[^/?#\s]+(/[^?#\s]*)?$")
    connection_string: SecretStr | None = Field(default=None, validation_alias="AZURE_STORAGE_CONNECTION_STRING")
    blob_prefix: str = Field(default="", pattern=r"^([^/\x00-\x1f\x7f\\][^\x00-\x1f\x7f\\]*)?$", max_length=512)
    checksum: Literal["crc64", "md5"] = "crc64"
    max_upload_rate: int = Field(default=0, ge=0)

    @field_validator("blob_prefix")
    @classmethod
    def _prefix(cls, value: str) -> str:
        if reason := objection(value.removesuffix("/")):
            raise ValueError(reason)
        return value if not value or value.endswith("/") else value + "/"

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if (self.account_url is None) == (self.connection_string is None):
            raise ValueError("exactly one of NFS_WATCH_ACCOUNT_URL and AZURE_STORAGE_CONNECTION_STRING has to be set")
        return self


class Settings(StoreSettings):
    """The settings of a shard. It needs `memory` bytes, and about 1 kB for each of `queue_size` files."""

    root: Path
    extensions: Annotated[tuple[str, ...], NoDecode] = ()
    temporary: Annotated[tuple[str, ...], NoDecode] = ()
    staging: Path | None = None
    staging_size: int = Field(default=0, ge=0)  # bytes of copies at most, 0: all that the disk has
    scan_interval: float = Field(default=2, ge=0.05, le=3600)
    settle: float = Field(default=5, ge=0, le=86400)
    # Linux writes dirty pages back after 30 s, looked at every 5 s: Documentation/admin-guide/sysctl/vm.rst
    settle_empty: float = Field(default=35, ge=0, le=86400)
    close_write: bool = True  # whether a close after writing means that a file is finished
    queue_size: int = Field(default=2000, ge=1, le=1_000_000)
    connections: int = Field(default=32, ge=1, le=1024)
    memory: int = Field(default=128 * MIB, ge=MIB)
    block_size: int = Field(default=8 * MIB, ge=64 * 1024, le=MAX_BLOCK)
    on_conflict: Literal["snapshot", "replace", "refuse"] = "snapshot"
    content_md5: bool = True
    retention: float = Field(default=60, ge=0, le=366 * 86400)
    sweep_interval: float = Field(default=5, ge=0.05, le=3600)
    result_retention: float = Field(default=30 * 86400, ge=0, le=3660 * 86400)
    max_sessions: int = Field(default=1, ge=1, le=10_000)
    nfs_timeout: float = Field(default=30, ge=1, le=3600)
    ordinal: int = Field(default=-1, ge=0)

    @field_validator("extensions", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:  # noqa: ANN401 as pydantic hands it over
        if isinstance(value, str):
            return check_sendable(check_extensions([part.strip() for part in value.split(",") if part.strip()]))
        return value

    @field_validator("temporary", mode="before")
    @classmethod
    def _suffixes(cls, value: Any) -> Any:  # noqa: ANN401 as pydantic hands it over
        return (
            check_suffixes([one.strip() for one in value.split(",") if one.strip()])
            if isinstance(value, str)
            else value
        )

    @field_validator("staging")
    @classmethod
    def _folder(cls, value: Path | None) -> Path | None:
        if value is not None and not value.is_dir():
            raise ValueError("it has to be a folder")
        return value

    @model_validator(mode="after")
    def _together(self) -> Self:
        check_sendable(self.extensions, self.temporary)
        if self.memory < 2 * self.block_size:
            raise ValueError(
                f"NFS_WATCH_MEMORY={self.memory} has to be at least twice NFS_WATCH_BLOCK_SIZE={self.block_size}"
            )
        if self.staging and _overlap(self.root, self.staging):
            raise ValueError(
                f"NFS_WATCH_STAGING={self.staging}: it has to be apart from NFS_WATCH_ROOT={self.root}: "
                "not the same folder, nor in it, nor around it"
            )
        return self


def _overlap(one: Path, other: Path) -> bool:
    """Tell whether one folder is the other, or inside the other: by device and inode, so that names do not matter."""
    try:
        first, second = ([_identity(at) for at in (path, *path.parents)] for path in (one.resolve(), other.resolve()))
    except OSError:
        return False  # a share that does not answer ends the start anyway
    return first[0] in second or second[0] in first


def _identity(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_dev, status.st_ino


def load() -> Settings:
    """Read the environment. Raises BadConfiguration, which names the variable and what is allowed."""
    given: dict[str, Any] = {}
    if not os.environ.get(f"{PREFIX}ORDINAL"):
        given["ordinal"] = own_ordinal(os.environ.get("POD_NAME"), socket.gethostname())
    return read(Settings, given)


def own_ordinal(pod_name: str | None, hostname: str) -> int:
    """Return N of a pod's name "...-N", else of the host's name, else 0.

    Raises BadConfiguration for a pod's name without -N: two shards must never share an ordinal.
    """
    match = _ORDINAL.fullmatch(pod_name or hostname)
    if match:
        return int(match[1])
    if pod_name:
        raise BadConfiguration(
            f"POD_NAME={pod_name}: it has to end in -N, as a StatefulSet names its pods; or set {PREFIX}ORDINAL"
        )
    return 0

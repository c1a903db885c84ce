"""A shard's ordinal: the end of its pod's name, else of the host's, else 0. No two shards may have the same."""

import pytest

from uploader.errors import BadConfiguration
from uploader.settings import own_ordinal


@pytest.mark.parametrize(
    ("pod", "host", "ordinal"),
    [
        ("nfs-watch-0", "", 0),
        ("nfs-watch-12", "nfs-watch-3", 12),
        ("a-1-2", "", 2),
        (None, "nfs-watch-3", 3),
        ("", "nfs-watch-3", 3),
        (None, "jetson", 0),
        (None, "jetson2", 0),
    ],
)
def test_the_ordinal_is_the_end_of_the_pods_name_else_of_the_hosts(pod: str | None, host: str, ordinal: int) -> None:
    """A StatefulSet's pods need no setting, and a single machine is shard 0."""
    assert own_ordinal(pod, host) == ordinal


@pytest.mark.parametrize("pod", ["nfs-watch", "nfs-watch-", "nfs-watch-7d4b9-x2x9z", "nfs-watch-0-a", "7"])
def test_a_pods_name_without_an_ordinal_is_refused_whatever_the_host_is_called(pod: str) -> None:
    """Under a Deployment, for example, every pod would be shard 0."""
    with pytest.raises(BadConfiguration, match=f"^POD_NAME={pod}: it has to end in -N.* NFS_WATCH_ORDINAL$"):
        own_ordinal(pod, "nfs-watch-3")

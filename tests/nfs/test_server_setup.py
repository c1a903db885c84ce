"""k8s/nfs-export.sh sets up an export that a client can use, and changes nothing when it is run again.

This is the last file of its guest: the script withdraws the export that the other cases use.
"""

import subprocess
from pathlib import Path

from tests.nfs import bed
from tests.nfs.bed import SOFT, V3
from tests.support.programs import TOP

GUEST = "dying"
# The guest has the host's /etc, which must stay as it is; and no systemd, whose part is only noted down.
SETUP = """
set -e
modprobe -d {guest} overlay
mkdir -p {etc}/upper {etc}/work {etc}/bin
printf '#!/bin/sh\\necho "$@" >>{etc}/systemctl\\n' >{etc}/bin/systemctl
chmod +x {etc}/bin/systemctl
mount -t overlay -o lowerdir=/etc,upperdir={etc}/upper,workdir={etc}/work overlay /etc
for time in 1 2; do
  PATH={etc}/bin:$PATH {script} {folder} 10.0.0.0/8
  cksum /etc/exports.d/* /etc/nfs.conf.d/*
done
"""


def test_the_export_script_can_be_run_twice_and_maps_all_to_one_owner() -> None:
    """Whatever user writes, the files belong to the user that the pods run as."""
    folder, etc = bed.EXPORT / "scripted", bed.GUEST / "etc"
    folder.mkdir()
    folder.chmod(0o777)
    text = SETUP.format(guest=bed.GUEST, etc=etc, folder=folder, script=TOP / "k8s/nfs-export.sh")
    done = subprocess.run(
        ["unshare", "-m", "bash", "-c", text], check=False, capture_output=True, text=True, timeout=bed.LONG
    )
    assert done.returncode == 0, done.stderr
    first, second = done.stdout.splitlines()[:4], done.stdout.splitlines()[4:]
    assert first == second
    assert "+4.2" in second[1]
    assert (etc / "systemctl").read_text().splitlines()[1::2] == ["restart nfs-server", "start nfs-server"]
    root = bed.mount(bed.MOUNTS / "scripted", "scripted", "uploader", f"{V3},{SOFT}")
    (root / "a").write_bytes(b"a")
    assert (folder / "a").stat().st_uid == 1000
    assert Path(folder / "a").read_bytes() == b"a"
    bed.unmount(root)

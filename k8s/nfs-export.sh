#!/usr/bin/env bash
# Exports a folder over NFS from Ubuntu, as docs/nfs.md suggests. It may be run again at any time: settings that are right stay.
#   sudo k8s/nfs-export.sh [folder] [clients]      clients as in exports(5), e.g. 192.168.1.0/24
set -euo pipefail
folder=${1:-/srv/nfs-watch}
clients=${2:-192.168.0.0/16}
owner=1000 # of all files, and the user of the pods (k8s/base/shards.yaml)

[ "$(id -u)" = 0 ] || { echo "run it as root" >&2; exit 1; }
PATH=$PATH:/usr/sbin:/sbin
command -v exportfs >/dev/null || { apt-get update -qq && apt-get install -y -qq nfs-kernel-server; }
[ -d "$folder" ] || install -d -o $owner -g $owner -m 0775 "$folder"

# Writes a file when its content differs; returns whether it was written.
differs() {
  mkdir -p "$(dirname "$1")"
  [ "$(cat "$1" 2>/dev/null)" != "$2" ] && printf '%s\n' "$2" >"$1"
}

# mp: a disk that is not mounted is not exported as an empty folder.
mp=$(mountpoint -q "$folder" && echo ,mp || true)
line="$folder $clients(rw,sync,no_subtree_check,all_squash,anonuid=$owner,anongid=$owner,fsid=101$mp)"
# Files can be opened again 10 s after the server has started, in place of 90 s.
times=$'[nfsd]\nlease-time=10\ngrace-time=10'
differs /etc/exports.d/nfs-watch.exports "$line" || true
restart=start
differs /etc/nfs.conf.d/nfs-watch.conf "$times" && restart=restart
systemctl enable --quiet nfs-server
systemctl $restart nfs-server
exportfs -ra

echo "exported: $line"
echo "versions: $(cat /proc/fs/nfsd/versions)   (without +4.2: overlay nfs-v3)"

#!/bin/bash
# image.sh DIRECTORY GUARDIAN HOOK: makes DIRECTORY/stateful-guardian.tar, a docker-archive of localhost/stateful-guardian:dev, from the two
# static binaries, which are copied to DIRECTORY. buildah keeps what it works with there too, so a second call waits for the first; whoever
# reads the archive meanwhile has the one before.
set -euo pipefail; . "$(dirname "$0")/env.sh"
usage="image.sh DIRECTORY GUARDIAN HOOK"
dir=$(realpath "${1:?$usage}"); name=localhost/stateful-guardian:dev
exec {lock}< "$dir"; flock $lock
cp "${2:?$usage}" "${3:?$usage}" "$dir/"
command -v buildah >/dev/null && command -v readelf >/dev/null || "$HERE/install.sh"
for b in guardian guardian-hook; do
  [ -x "$dir/$b" ] || die "no program $dir/$b"
  ! LC_ALL=C readelf -lW "$dir/$b" | grep -q INTERP || die "$dir/$b is not static: build it with RUSTFLAGS='-C target-feature=+crt-static' and --target"
done
# vfs and chroot: no mount and no namespace is needed for a build that only copies. Time 0: same input, same image.
b() { buildah --root "$dir/.buildah/root" --runroot "$dir/.buildah/run" --storage-driver vfs "$@"; }
rm -rf "$dir/.buildah"; trap 'rm -rf "$dir/.buildah"' EXIT
b build --quiet --isolation chroot --cni-config-dir "$dir/.buildah/cni" --timestamp 0 --ignorefile /dev/null -f "$CLONE/Containerfile" -t "$name" "$dir" >/dev/null
rm -f "$dir/.stateful-guardian.tar"                   # buildah adds nothing to an archive that is there
b push --quiet "$name" "docker-archive:$dir/.stateful-guardian.tar:$name"
mv "$dir/.stateful-guardian.tar" "$dir/stateful-guardian.tar"
say "$name in $dir/stateful-guardian.tar, $(du -k "$dir/stateful-guardian.tar" | cut -f1) KiB"

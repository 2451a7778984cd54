#!/bin/bash
# Makes $IMAGES/{pause,busybox,redis}.tar from Debian packages, named as the public images that they stand for, so that
# manifests are used unmodified. A docker-archive is three files in a tar; no daemon, no registry.
set -euo pipefail; NEW_CLUSTER=1; . "$(dirname "$0")/env.sh"
[ ! -d "$IMAGES" ] || exit 0
alone images
[ ! -d "$IMAGES" ] || exit 0
need_space "$CLUSTER_CACHE" 100 "images"             # 23 MiB of archives, twice that while they are packed
mkdir -p "$CLUSTER_CACHE"; T=$(mktemp -d "$CLUSTER_CACHE/.images.XXXXXX"); trap 'rm -rf "$T"' EXIT; mkdir "$T/done"

base() {                                             # rootfs: busybox with its applets, users, /tmp
  mkdir -p "$1"/{bin,sbin,usr/bin,usr/sbin,usr/local/bin,etc,tmp,var/run,root,proc,sys,dev}; chmod 1777 "$1/tmp"
  install -m755 "$(command -v busybox)" "$1/bin/busybox"
  for a in $(busybox --list); do [ "$a" = busybox ] || ln -sf busybox "$1/bin/$a"; done
  printf 'root:x:0:0:root:/root:/bin/sh\nredis:x:999:1000:redis:/data:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n' > "$1/etc/passwd"
  printf 'root:x:0:\nredis:x:1000:\nnogroup:x:65534:\n' > "$1/etc/group"
  echo 'hosts: files dns' > "$1/etc/nsswitch.conf"
}
program() {                                          # rootfs, program, where to: it, and every library that ldd names
  local f l; f=$(readlink -f "$(command -v "$2")")
  install -D -m755 "$f" "$1/$3"
  ldd "$f" | grep -oE '/[^ ]+' | sort -u | while read -r l; do [ -e "$1$l" ] || install -D -m755 "$(readlink -f "$l")" "$1$l"; done
}
pack() {                                             # rootfs, name, config, tags...: the same input gives the same bytes
  local root=$1 name=$2 config=$3 d=$T/$2.image layer sum; shift 3; mkdir "$d"
  local tar=(tar --sort=name --mtime=@0 --numeric-owner -C "$root")
  "${tar[@]}" --owner=0 --group=0 --exclude=./data -cf "$d/layer.tar" .
  [ ! -d "$root/data" ] || "${tar[@]}" --owner=999 --group=1000 -rf "$d/layer.tar" ./data
  layer=$(sha256sum < "$d/layer.tar" | cut -d' ' -f1)
  jq -nc --argjson c "$config" --arg l "sha256:$layer" '{architecture: "amd64", os: "linux", created: "1970-01-01T00:00:00Z", config: $c,
    rootfs: {type: "layers", diff_ids: [$l]}, history: [{created: "1970-01-01T00:00:00Z"}]}' > "$d/config.json"
  sum=$(sha256sum < "$d/config.json" | cut -d' ' -f1); mv "$d/config.json" "$d/$sum.json"
  printf '%s\n' "$@" | jq -Rnc --arg c "$sum.json" '[{Config: $c, RepoTags: [inputs], Layers: ["layer.tar"]}]' > "$d/manifest.json"
  tar --sort=name --mtime=@0 --owner=0 --group=0 --numeric-owner -C "$d" -cf "$T/done/$name.tar" manifest.json "$sum.json" layer.tar
}
ENV='"Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"]'

# pause holds a pod's network namespace; its source is part of Kubernetes.
mkdir "$T/pause"; gcc -Os -s -static -DVERSION=3.10 -o "$T/pause/pause" "$BIN/pause.c"
pack "$T/pause" pause '{"User": "65535:65535", "Entrypoint": ["/pause"]}' pause:3.10
base "$T/busybox"; pack "$T/busybox" busybox "{\"Cmd\": [\"sh\"], $ENV}" busybox:latest busybox:1.35

# Debian's Redis 7 under the names of 5 and 7. As in the public image: the server of a container that runs as root becomes
# the user redis, who gets /data; protected mode is off unless asked for, so that other pods reach it.
R=$T/redis; base "$R"; mkdir "$R/data"
program "$R" redis-cli usr/local/bin/redis-cli
program "$R" redis-check-rdb usr/local/lib/redis/redis-server      # one program, which goes by its name
program "$R" setpriv usr/local/lib/redis/setpriv
cat > "$R/usr/local/bin/redis-server" <<'W'
#!/bin/sh
case "${1-}" in
  -v|--version|-h|--help|--test-memory|--check-system) ;;
  *) case " $* " in *protected-mode*) ;; *) { [ -f "${1-}" ] && grep -q '^ *protected-mode' "$1"; } || set -- "$@" --protected-mode no;; esac;;
esac
exec /usr/local/lib/redis/redis-server "$@"
W
cat > "$R/usr/local/bin/docker-entrypoint.sh" <<'W'
#!/bin/sh
set -e
case "${1-}" in -*|*.conf) set -- redis-server "$@";; esac
if [ "${1-}" = redis-server ] && [ "$(id -u)" = 0 ]; then
  find . ! -user redis -exec chown redis {} +
  exec /usr/local/lib/redis/setpriv --reuid=redis --regid=redis --clear-groups -- "$0" "$@"
fi
exec "$@"
W
chmod 755 "$R"/usr/local/bin/*
pack "$R" redis "{\"Entrypoint\": [\"docker-entrypoint.sh\"], \"Cmd\": [\"redis-server\"], \"WorkingDir\": \"/data\",
  \"ExposedPorts\": {\"6379/tcp\": {}}, \"Volumes\": {\"/data\": {}}, $ENV}" redis:5-alpine redis:5 redis:7-alpine redis:7 redis:latest
mv "$T/done" "$IMAGES"

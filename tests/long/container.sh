#!/usr/bin/env bash
# What deploy/container/Containerfile does, in chroots that debootstrap makes: the packages of group
# `image` are all that the installed programs need, and everything runs as user 10001.
#
# With ATHANOR_CONTAINER_BUILD=1 the first stage too is done in a chroot (half an hour on two cores);
# otherwise the tree is installed from the build folder.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
build=${ATHANOR_BUILD:-$root/build}
case $build in /*) ;; *) build=$root/$build ;; esac
skip() { echo "container: skipped, $*"; exit 0; }
say() { echo "container: $*"; }

[ "$(id -u)" = 0 ] || skip "needs root"
command -v debootstrap >/dev/null || skip "package debootstrap is not installed"
mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Codename: bookworm' 'Component: main' 2>/dev/null | grep -v security | sort -u | sed -n 1p || true)
[ -n "$mirror" ] || skip "no Debian mirror is configured"

work=$(mktemp -d /tmp/athanor-container-XXXXXX)
mounted=()
finish() {
    local status=$? at
    for at in "${mounted[@]}"; do umount -l "$at" || true; done
    [ $status -eq 0 ] || tail -20 "$work"/*.log 2>/dev/null || true
    rm -rf --one-file-system "$work"
    exit $status
}
trap finish EXIT
trap 'exit 143' TERM INT

stage() { # NAME: a bare Debian 12
    debootstrap --variant=minbase bookworm "$work/$1" "$mirror" >"$work/$1.log" 2>&1 ||
        skip "debootstrap has no mirror: $(tail -1 "$work/$1.log")"
    mount -t proc proc "$work/$1/proc"
    mounted+=("$work/$1/proc")
    # What the sources and proxies of this machine are, they are inside too.
    cp -a /etc/apt/. "$work/$1/etc/apt/"
    cp /etc/resolv.conf "$work/$1/etc/resolv.conf" 2>/dev/null || true
    mkdir -p "$work/$1/tmp/deploy"
    cp "$root/deploy/packages.sh" "$root/deploy/packages.txt" "$work/$1/tmp/deploy/"
}

if [ -n "${ATHANOR_CONTAINER_BUILD:-}" ]; then
    stage build
    chroot "$work/build" /tmp/deploy/packages.sh build >>"$work/build.log" 2>&1
    mkdir "$work/build/source"
    git -C "$root" archive HEAD | tar -x -C "$work/build/source"
    chroot "$work/build" /source/deploy/container/build.sh /source /tree >>"$work/build.log" 2>&1
    tree=$work/build/tree
    say "built in a chroot"
else
    DESTDIR=$work/tree cmake --install "$build" --prefix /usr >"$work/install.log"
    tree=$work/tree
    rm -f "$tree"/usr/lib/athanor/athanor-cuda.so # which the image's own build does not make
fi

stage image
chroot "$work/image" /tmp/deploy/packages.sh image >>"$work/image.log" 2>&1
cp -a "$tree/." "$work/image/"
chroot "$work/image" useradd --uid 10001 --home-dir /var/lib/athanor --shell /usr/sbin/nologin athanor
chroot "$work/image" install -d -o athanor -g athanor /var/lib/athanor /run/athanor
say "packages of the image: $(chroot "$work/image" dpkg-query -W | wc -l), $(du -sm --one-file-system "$work/image" | cut -f1) MiB"

enter=(chroot --userspec=10001:10001 "$work/image" /usr/bin/env PATH=/usr/bin:/bin
    HOME=/var/lib/athanor ATHANOR_HEALTH_FILE=/run/athanor/health)
inside() { "${enter[@]}" "$@"; }
for program in athanor athanor-coordinator athanor-worker athanor-engine; do
    inside $program "$([ $program = athanor ] && echo version || echo --version)" >/dev/null
done
missing=$(inside sh -c 'ldd /usr/bin/athanor* /usr/lib/athanor/*.so 2>/dev/null' | grep 'not found' || true)
[ -z "$missing" ] || { echo "$missing"; exit 1; }
# Not into grep -q: the engine, still printing, would die of SIGPIPE.
inside athanor-engine --catalogue >"$work/catalogue.json"
grep -q '"recipes"' "$work/catalogue.json"
if inside athanor-worker --alive 2>/dev/null; then echo "--alive without a daemon succeeds"; exit 1; fi
key=/var/lib/athanor/n1.key
inside sh -c "cd /tmp && athanor keys new n1 --out $key" >/dev/null
# Not through the function: $! is to be the worker itself, not a shell around it.
"${enter[@]}" athanor-worker --keys "$key" --server-key "$key.pub" --coordinator tcp://127.0.0.1:1 \
    --state /var/lib/athanor/state >"$work/worker.log" 2>&1 &
worker=$!
for _ in $(seq 100); do
    inside athanor-worker --alive >/dev/null 2>&1 && break
    read -rt 0.2 <> <(:) || true
done
inside athanor-worker --alive >/dev/null
kill "$worker"
wait "$worker" || true
say "all programs run as user 10001 with the packages of the image"

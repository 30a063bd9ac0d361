#!/usr/bin/env bash
# Installs the Debian packages of the named groups from deploy/packages.txt.
#   deploy/packages.sh build run test data
# Needs root or sudo only when something is missing. Runs any number of times.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

wanted=()
for group in "$@"; do
    mapfile -t more < <(awk -v group="$group" '$1 == group { print $2 }' "$here/packages.txt")
    [ ${#more[@]} -gt 0 ] || { echo "packages.sh: no group '$group' in packages.txt" >&2; exit 2; }
    wanted+=("${more[@]}")
done

missing=()
for package in "${wanted[@]}"; do
    state=$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null || true)
    [ "$state" = installed ] || missing+=("$package")
done
[ ${#missing[@]} -eq 0 ] && exit 0

as_root=()
if [ "$(id -u)" -ne 0 ]; then
    command -v sudo >/dev/null || {
        echo "packages.sh: missing ${missing[*]}; run as root, or install sudo" >&2
        exit 1
    }
    as_root=(sudo)
fi
# Debian's packages would otherwise start a cluster of their own and a daemon.
policy=/etc/postgresql-common/createcluster.d/athanor.conf
if [[ " ${missing[*]} " == *" postgresql-15 "* ]]; then
    "${as_root[@]}" mkdir -p "$(dirname "$policy")"
    printf 'create_main_cluster = false\n' | "${as_root[@]}" tee "$policy" >/dev/null
fi
echo "installing ${#missing[@]} packages: ${missing[*]}"
log=$(mktemp)
trap 'rm -f "$log"' EXIT
install() {
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
        apt-get install -y --no-install-recommends -o Dpkg::Use-Pty=0 "${missing[@]}" >"$log" 2>&1
}
install || { "${as_root[@]}" apt-get update >"$log" 2>&1 && install; } || { cat "$log" >&2; exit 1; }

#!/usr/bin/env bats
# Units, manifests and what supervisors ask: without systemd or Kubernetes running.

setup_file() {
    source "$BATS_TEST_DIRNAME/cluster.bash"
    cluster_home
    export tree=$ATHANOR_HOME/tree
    DESTDIR=$tree cmake --install "$build" --prefix /usr >"$ATHANOR_HOME/install.out"
}

teardown_file() {
    source "$BATS_TEST_DIRNAME/cluster.bash"
    athanor down --force >/dev/null 2>&1 || true # of a test that failed
    rm -rf "$ATHANOR_HOME"
}

setup() { source "$BATS_TEST_DIRNAME/cluster.bash"; }

@test "systemd understands the units, and they expose little" {
    command -v systemd-analyze >/dev/null || skip "package systemd is not installed"
    # Exposure as of systemd 252, in tenths: jobs are started from the worker, so it keeps most.
    declare -A most=([coordinator]=20 [pilot]=40 [worker]=85)
    for unit in "$root"/systemd/*.service; do
        name=$(basename "$unit" .service)
        sed "s|=/usr/bin/|=$build/bin/|" "$unit" >"$ATHANOR_HOME/$name.service"
        said=$(systemd-analyze verify --man=no "$ATHANOR_HOME/$name.service" 2>&1 |
            grep -F "$name.service" | grep -v "Unknown key 'DelegateSubgroup'" || true)
        [ -z "$said" ] || { echo "$said"; return 1; }
        systemd-analyze security --offline=true --threshold="${most[${name#athanor-}]}" \
            "$ATHANOR_HOME/$name.service" >"$ATHANOR_HOME/$name.security" ||
            { tail -1 "$ATHANOR_HOME/$name.security"; return 1; }
    done
}

@test "each password of the coordinator is a credential of its unit, documented, and read from there" {
    unit=$root/systemd/athanor-coordinator.service
    athanor-coordinator --help >"$ATHANOR_HOME/help"
    for name in db-password notify-secret secrets-key mail-password; do
        grep -qx "LoadCredential=athanor.$name" "$unit"
        grep -q "^| .athanor.$name. |" "$root/systemd/README.md"
        [ $name = mail-password ] || tr -s '\n ' '  ' <"$ATHANOR_HOME/help" | grep -q "the credential athanor.$name"
    done
    ! grep -E '^Environment=.*(PASSWORD|SECRET|TOKEN)' "$root"/systemd/*.service
}

@test "manifests for Kubernetes fit together, and a slip in one is noticed" {
    python3 -c 'import yaml' 2>/dev/null || skip "package python3-yaml is not installed"
    check() { python3 "$root/tests/deploy/manifests.py" "$1" "$build/bin" "$1/README.md"; }
    check "$root/deploy/kubernetes"
    # What to change, and what must be said then.
    slips=('s/--jobs-dir/--job-dir/|has no option --job-dir' 's/--alive/--health-of-it/|has no option --health-of-it'
        's/targetPort: athanor/targetPort: athanr/|has a port .athanr.' 's/claimName: athanor-jobs/claimName: jobs/|no claim .jobs.'
        's/name: athanor-database, key/name: database, key/|does not tell of .database.'
        's/name: tmp, mountPath/name: temp, mountPath/|mounts ..temp.., which are no volumes'
        's/serviceName: athanor-coordinator/serviceName: athanor/|no service of this name'
        's/runAsNonRoot: true/runAsNonRoot: false/|runs as root'
        's/part-of: athanor$/part-of: athanor\n        x: y/;s/matchLabels: {athanor\/role: worker}/matchLabels: {athanor\/role: none}/|matches no pod')
    cp -r "$root/deploy/kubernetes" "$ATHANOR_HOME/slip"
    for slip in "${slips[@]}"; do sed -i "${slip%|*}" "$ATHANOR_HOME"/slip/*.yaml; done
    ! check "$ATHANOR_HOME/slip" >"$ATHANOR_HOME/slip.out" || return 1
    for slip in "${slips[@]}"; do
        grep -q "${slip##*|}" "$ATHANOR_HOME/slip.out" || { echo "not noticed: $slip"; cat "$ATHANOR_HOME/slip.out"; return 1; }
    done
}

@test "the image's packages are those that the programs load" {
    command -v dpkg-query >/dev/null || skip "not a Debian"
    packages=$(awk '$1 == "image" { print $2 }' "$root/deploy/packages.txt" | sort -u)
    for file in "$tree"/usr/bin/athanor* "$tree"/usr/lib/athanor/*.so; do
        [[ $file != *cuda* ]] || continue # the image computes on processors, and has no CUDA
        objdump -p "$file" 2>/dev/null | awk '$1 == "NEEDED" { print $2 }'
    done | sort -u | grep -vE '^(libc|libm|ld-linux.*|libgcc_s|libasan|libubsan|libclang.*)\.so' >"$ATHANOR_HOME/needed"
    files=$(while read -r library; do
        readlink -f "$(ldconfig -p | awk -v name="$library" '$1 == name { print $NF; exit }')"
    done <"$ATHANOR_HOME/needed" | xargs -n1 basename)
    mapfile -t patterns < <(sed 's|^|*/|' <<<"$files")
    dpkg-query -S "${patterns[@]}" >"$ATHANOR_HOME/owners" 2>/dev/null || true
    for file in $files; do
        owner=$(grep "/$file$" "$ATHANOR_HOME/owners" | head -1 | cut -d: -f1)
        grep -qx "$owner" <<<"$packages" || { echo "$file is of '$owner', which is not in group image"; return 1; }
    done
}

@test "a node enrols by a token, joins under its name, says that it is alive, and gives back its work on SIGTERM" {
    athanor up --workers 0 >"$ATHANOR_HOME/up.out" 2>&1 || { cat "$ATHANOR_HOME/up.out"; return 1; }
    mkdir "$ATHANOR_HOME/node"
    athanor keys token --role worker --name node7 --out "$ATHANOR_HOME/token" 2>/dev/null
    run athanor-worker --enrol "$(cat "$ATHANOR_HOME/token")" --keys "$ATHANOR_HOME/node/worker.key"
    [ "$status" -ne 0 ]
    grep -q "can be read by every account" <<<"$output"
    ! grep -q atk1_ <<<"$output"
    [ "$(athanor-worker --enrol - --keys "$ATHANOR_HOME/node/worker.key" <"$ATHANOR_HOME/token")" = "enrolled as worker 'node7'" ]
    run athanor-worker --enrol "$ATHANOR_HOME/token" --keys "$ATHANOR_HOME/other.key"
    grep -q "was used already" <<<"$output"
    [ ! -e "$ATHANOR_HOME/other.key" ]
    [ "$(athanor keys tokens --all --column state)" = used ]
    export ATHANOR_HEALTH_FILE=$ATHANOR_HOME/health
    run athanor-worker --alive
    [ "$status" -ne 0 ]
    as_root=(); [ "$(id -u)" -ne 0 ] || as_root=(--allow-root-jobs)
    athanor-worker --keys "$ATHANOR_HOME/node/worker.key" --state "$ATHANOR_HOME/node/state" \
        --until +1h --margin 1m --open-ended --cores 1 "${as_root[@]}" >"$ATHANOR_HOME/node.log" 2>&1 3>&- &
    worker=$!
    until_true 20 sql_is "SELECT name || ' ' || (until_at < now() + interval '1 hour') FROM athanor.workers WHERE state = 'OK'" "node7 true"
    until_true 20 athanor-worker --alive
    printf '%s\n' 'athanor: 1' 'name: long' 'kind: command' 'command: [sleep, "600"]' \
        'limits: {stop_grace: 1s}' 'retry: {attempts: 1, on: []}' >"$ATHANOR_HOME/long.yaml"
    printf '%s\n' 'athanor: 1' 'name: longer' 'kind: command' 'command: [sleep, "600"]' \
        'limits: {wall_time: 2h}' >"$ATHANOR_HOME/longer.yaml"
    longer=$(athanor submit "$ATHANOR_HOME/longer.yaml" --ids)
    long=$(athanor submit "$ATHANOR_HOME/long.yaml" --ids)
    until_true 20 sql_is "SELECT state FROM athanor.jobs WHERE job_id = $long" RUNNING
    [ "$(job_state "$longer")" = READY ]
    athanor why "$longer" | grep -q "may run longer"
    kill -TERM $worker
    wait $worker
    [ "$(sql "SELECT state || ' ' || cause FROM athanor.jobs WHERE job_id = $long")" = "READY node_ended" ]
    [ "$(sql "SELECT state FROM athanor.workers WHERE name = 'node7'")" = LEFT ]
    # A password that is neither in the address nor in the environment.
    socket=$(sql "SELECT trim(both '\"' FROM setting) FROM pg_settings WHERE name = 'unix_socket_directories'")
    hba=$(sql "SHOW hba_file")
    printf 'local all by_password scram-sha-256\n%s\n' "$(cat "$hba")" >"$hba"
    mkdir -m 700 "$ATHANOR_HOME/credentials"
    head -c 12 /dev/urandom | base64 >"$ATHANOR_HOME/credentials/athanor.db-password"
    chmod 600 "$ATHANOR_HOME/credentials/athanor.db-password"
    { printf "SET default_transaction_read_only = off; CREATE ROLE by_password LOGIN SUPERUSER PASSWORD '%s';\n" "$(cat "$ATHANOR_HOME/credentials/athanor.db-password")"
      echo "SELECT pg_reload_conf();"; } | athanor sql -- -q >/dev/null
    by_password() { athanor-coordinator --migrate --db "host=$socket dbname=$(sql 'SELECT current_database()') user=by_password"; }
    run by_password
    [[ $status -ne 0 && $output == *"no password supplied"* ]] || { echo "$output"; return 1; }
    CREDENTIALS_DIRECTORY=$ATHANOR_HOME/credentials by_password
    athanor down --force >/dev/null
}

@test "as the first process of a container the worker waits for what dead programs leave" {
    [ "$(id -u)" -eq 0 ] || skip "needs root"
    unshare --fork --pid --mount-proc "$build/bin/athanor-worker" --version | grep -q athanor-worker
    athanor keys new lone --out "$ATHANOR_HOME/lone.key" >/dev/null
    unshare --fork --pid --mount-proc sh -c "exec '$build/bin/athanor-worker' --keys '$ATHANOR_HOME/lone.key' \
        --server-key '$ATHANOR_HOME/lone.key.pub' --coordinator ipc://$ATHANOR_HOME/nobody --cores 1 \
        --state '$ATHANOR_HOME/lone' --allow-root-jobs" >"$ATHANOR_HOME/lone.log" 2>&1 3>&- &
    outer=$!
    until_true 20 grep -q "cores 1" "$ATHANOR_HOME/lone.log"
    first=$(pgrep -P $outer)
    # An orphan of the container: its parent ends at once, itself a moment later.
    nsenter -t "$first" -p -m sh -c '(sleep 0.2 & ) ; exit 0'
    no_zombies() { ! ps -o stat= --ppid "$first" | grep -q Z; }
    until_true 10 no_zombies
    kill -TERM "$first"
    wait $outer
}

@test "each test that the page of troubles names is there" {
    found=0
    while IFS= read -r named; do
        file=$root/${named%%: *}
        grep -qF -- "${named#*: }" "$file" || { echo "tests/troubles.md: no '${named#*: }' in ${named%%: *}"; return 1; }
        found=$((found + 1))
    done < <(grep -o '`tests/[^`: ]*: [^`]*`' "$root/tests/troubles.md" | tr -d '`')
    [ "$found" -gt 60 ]
}

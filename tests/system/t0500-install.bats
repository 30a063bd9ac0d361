#!/usr/bin/env bats
# What `cmake --install` puts into a folder runs from there, and its manual pages render.

setup_file() {
    source "$BATS_TEST_DIRNAME/cluster.bash"
    cluster_home
    export tree=$ATHANOR_HOME/tree
    DESTDIR=$tree cmake --install "$build" >"$ATHANOR_HOME/install.out"
    export programs
    programs=$(dirname "$(find "$tree" -name athanor-engine -type f)")
}

teardown_file() {
    source "$BATS_TEST_DIRNAME/cluster.bash"
    "$programs/athanor" down --force >/dev/null 2>&1 || true
    rm -rf "$ATHANOR_HOME"
}

@test "an installed cluster finds its programs and the module for several ranks" {
    "$programs/athanor" up --workers 1 --cores 2
    printf '%s\n' 'athanor: 1' 'name: two' 'kind: command' 'command: [sh, -c, "echo rank $RANK"]' \
        'launcher: pmix' 'resources: {ranks: 2, cores: 1, memory: 64MiB}' >"$ATHANOR_HOME/two.yaml"
    id=$("$programs/athanor" submit "$ATHANOR_HOME/two.yaml" --ids)
    timeout 60 "$programs/athanor" wait "$id"
    [ "$("$programs/athanor" logs "$id" | grep -c 'rank [01]$')" = 2 ]
    "$programs/athanor" recipes --column name | grep -qx npo
}

@test "units name the installed programs" {
    for unit in $(find "$tree" -name 'athanor-*.service'); do
        program=$(sed -n 's/^ExecStart=\([^ ]*\).*/\1/p' "$unit")
        [ -x "$tree$program" ]
    done
    [ "$(find "$tree" -name 'athanor-*.service' | wc -l)" = 3 ]
}

@test "manual pages render without warnings" {
    pages=$(find "$tree" -path '*/man/man?/*')
    [ "$(wc -l <<<"$pages")" = 4 ]
    for page in $pages; do
        warnings=$(groff -ww -man -Tutf8 "$page" 2>&1 >/dev/null)
        [ -z "$warnings" ] || { echo "$page: $warnings"; return 1; }
    done
}

@test "the completion is a shell script" {
    bash -n "$(find "$tree" -path '*bash-completion/completions/athanor')"
}

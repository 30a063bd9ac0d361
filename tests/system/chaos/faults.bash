# faults.bash - what goes wrong, and when: drawn from the seed before anything runs. Faults overlap
# on different hosts. Sourced by ../chaos.sh.
#
#   kill     SIGKILL of the daemon (PostgreSQL: of the postmaster), started again after the time
#   end      SIGTERM, likewise
#   power    all processes of the host at once, jobs and shepherds too; its disk stays
#   stop     SIGSTOP, SIGCONT after the time (PostgreSQL: of all its processes)
#   cut      the host's link is down for the time
#   blind    it and PostgreSQL do not reach each other; all others do
#
# A target of "leader" is whichever coordinator leads at the moment.

fault_kinds="kill-leader stop-leader cut-leader blind-leader kill-c stop-c cut-c end-c kill-w stop-w cut-w power-w kill-db stop-db cut-db"

state=0
draw() { # BOUND: into $drawn; the generator of the C standard's example, its better bits
    state=$(((state * 1103515245 + 12345) % 2147483648))
    drawn=$(((state >> 8) % $1))
}

# Each kind comes at least as often as fills three quarters of the schedule; the rest is drawn.
schedule_kinds() { # COUNT: into kinds[]
    local all=($fault_kinds) count=$1 i name
    schedule_kinds=()
    for name in "${all[@]}"; do
        for ((i = 0; i < count * 3 / 4 / ${#all[@]} || i == 0; i++)); do schedule_kinds+=("$name"); done
    done
    while [ ${#schedule_kinds[@]} -lt "$count" ]; do
        draw ${#all[@]}
        schedule_kinds+=("${all[drawn]}")
    done
    for ((i = ${#schedule_kinds[@]} - 1; i > 0; i--)); do
        draw $((i + 1))
        name=${schedule_kinds[drawn]} schedule_kinds[drawn]=${schedule_kinds[i]} schedule_kinds[i]=$name
    done
}

# Lines "at-ms number begin|end kind target" in order of time; the leader's are not known before.
schedule() { # COUNT PACE-MS: how far apart they begin, on average
    local i kind target at=0 lasts
    schedule_kinds "$1"
    declare -A busy
    for ((i = 0; i < ${#schedule_kinds[@]}; i++)); do
        kind=${schedule_kinds[i]}
        case $kind in
            *-c) draw 3; target=c$((drawn + 1)) ;;
            *-w) draw 4; target=w$((drawn + 1)) ;;
            *) target=${kind#*-} ;;
        esac
        draw 200; at=$((at + $2 * drawn / 100))
        draw 100; lasts=$(($2 / 4 + $2 * drawn * 3 / 200)) # a quarter to seven quarters of the pace
        [ $at -gt "${busy[$target]:-0}" ] || at=${busy[$target]}
        busy[$target]=$((at + lasts + 200))
        echo "$at $i begin ${kind%-*} $target $lasts"
        echo "$((at + lasts)) $i end ${kind%-*} $target $lasts"
    done | sort -n -k1,1 -k2,2 -k3,3
}

leads() { # sets $leader, a host whose process lives
    local name holder
    holder=$(timeout 1 psql -h "$ATHANOR_HOME" -U athanor -d athanor -At -c "SELECT name FROM athanor.coordinators WHERE state = 'leader'" 2>/dev/null | cut -d: -f2) || return 1
    for name in $coordinators; do
        [ -n "$holder" ] && [ "${pid[$name]}" = "$holder" ] && is_alive "$name" && leader=$name
    done
    [ -n "$leader" ]
}

# The leader in SQL, else the last that was seen there: PostgreSQL may be away itself.
leader=
find_leader() {
    local last=$leader tries=0
    leader=
    until leads || [ $tries = 3 ]; do
        tries=$((tries + 1))
        nap 300
    done
    [ -n "$leader" ] || leader=${last:-c1}
}

declare -A on # number of a fault -> the host that it fell on
begin_fault() { # KIND HOST
    case $1 in
        kill) kill_hard "$2" daemon ;;
        power) kill_hard "$2" everything ;;
        end) kill -TERM "${pid[$2]}" 2>/dev/null || true ;;
        stop) if [ "$2" = db ]; then all_of db; else echo "${pid[$2]}"; fi | xargs -r kill -STOP 2>/dev/null || true ;;
        cut) link "$2" down ;;
        blind) ip -n db route replace blackhole "$(address "$2")/32" ;;
    esac
}

end_fault() { # KIND HOST
    case $1 in
        kill | power) restart "$2" ;;
        end) # it may have been stopped meanwhile, as the leader, or killed and started again
            kill -CONT "${pid[$2]}" 2>/dev/null || true
            kill -TERM "${pid[$2]}" 2>/dev/null || true
            until_true 30 is_dead "$2" || { wrong=1; echo "WRONG: $2 does not end on SIGTERM"; kill_hard "$2" daemon; }
            restart "$2" ;;
        stop) if [ "$2" = db ]; then all_of db; else echo "${pid[$2]}"; fi | xargs -r kill -CONT 2>/dev/null || true ;;
        cut) link "$2" up ;;
        blind) ip -n db route del blackhole "$(address "$2")/32" 2>/dev/null || true ;;
    esac
}

nap() { # MS
    [ "$1" -le 0 ] || read -rt "$(($1 / 1000)).$(printf %03d $(($1 % 1000)))" <> <(:) || true
}

now_ms() { echo $((${EPOCHREALTIME/./} / 1000)); }

executed=()
run_faults() { # FILE: of schedule
    local from at number what kind target lasts
    from=$(now_ms)
    while read -r at number what kind target lasts <&3; do
        nap $((from + at - $(now_ms)))
        if [ "$what" = begin ]; then
            on[$number]=$target
            [ "$target" != leader ] || { find_leader; on[$number]=$leader; }
            echo "fault $number at $(($(now_ms) - from)) ms: $kind $target for $lasts ms: ${on[$number]}"
            [ "$target" != leader ] || echo "$(now_ms) $kind $lasts" >>"$ATHANOR_HOME/led"
            begin_fault "$kind" "${on[$number]}"
            case $target in leader | db) executed+=("$kind-$target") ;; *) executed+=("$kind-${target:0:1}") ;; esac
        else
            end_fault "$kind" "${on[$number]}"
        fi
    done 3<"$1"
}

# Whatever overlapped, everything is up and connected now.
heal() {
    local name
    for name in $hosts; do link "$name" up; done
    for name in db $coordinators $workers; do
        end_fault blind "$name"
        end_fault stop "$name"
        restart "$name"
    done
}

count_executed() { printf '%s\n' "${executed[@]}" | sort | uniq -c | awk '{ printf "%s%s %d", (NR > 1 ? ", " : ""), $2, $1 } END { print "" }'; }

# From the fault to the log line of the next who leads, where the fault was long enough to cost the
# leadership. PostgreSQL may have been away as well.
takeovers() {
    grep -h 'leading epoch' "$ATHANOR_HOME"/log/c? | cut -d' ' -f1 | date -f - +%s%3N | sort -n >"$ATHANOR_HOME/leads"
    awk 'NR == FNR { at[++n] = $1; next }
        $2 == "kill" || $3 >= 2500 { for (i = 1; i <= n; i++) if (at[i] > $1) { print $2, at[i] - $1; break } }' \
        "$ATHANOR_HOME/leads" "$ATHANOR_HOME/led" | sort -k1,1 -k2,2n |
        awk '{ v[$1] = v[$1] (v[$1] ? ", " : "") $2 } END { for (k in v) print "ms from " k " of the leader to the next: " v[k] }' | sort
}

# slurm.bash - a private Slurm on loopback: one controller, one node, munge with a key of its own,
# everything below one temporary directory. Sourced by bench/scheduler_bench.sh and long/slurm.sh;
# needs root and the packages of the group `bench` (deploy/packages.txt).

slurm_missing() { # prints why Slurm cannot be measured here; nothing when it can
    [ "$(id -u)" = 0 ] || { echo "needs root"; return; }
    local program
    for program in slurmctld slurmd sbatch srun squeue munged; do
        command -v "$program" >/dev/null || { echo "package slurm-wlm is not installed"; return; }
    done
}

slurm_wait() { # SECONDS COMMAND...: until it is true
    local left=$(($1 * 10)); shift
    until "$@" >/dev/null 2>&1; do
        left=$((left - 1))
        [ $left -gt 0 ] || return 1
        read -rt 0.1 <> <(:) || true
    done
}

slurm_config() { # CPUS: what the node pretends to have
    local host port=$((20000 + $$ % 20000))
    host=$(hostname -s)
    cat >"$slurm_home/slurm.conf" <<CONF
ClusterName=bench
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=$port
SlurmdPort=$((port + 1))
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket=$slurm_home/munge/socket
StateSaveLocation=$slurm_home/state
SlurmdSpoolDir=$slurm_home/spool
SlurmctldPidFile=$slurm_home/slurmctld.pid
SlurmdPidFile=$slurm_home/slurmd.pid
SlurmctldLogFile=$slurm_home/slurmctld.log
SlurmdLogFile=$slurm_home/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
ReturnToService=2
MaxArraySize=100001
MaxJobCount=200000
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SlurmdParameters=config_overrides
NodeName=$host NodeAddr=127.0.0.1 CPUs=$1 RealMemory=1000 State=UNKNOWN
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
CONF
}

slurm_up() { # CPUS
    slurm_home=$(mktemp -d /tmp/athanor-slurm-XXXXXX)
    chmod 755 "$slurm_home"
    mkdir -p "$slurm_home"/{munge,state,spool}
    chmod 755 "$slurm_home/munge"
    export SLURM_CONF=$slurm_home/slurm.conf
    slurm_config "$1"
    head -c 64 /dev/urandom >"$slurm_home/munge/key"
    chmod 600 "$slurm_home/munge/key"
    # In the foreground, so that we know whom to end. --force: root, and a directory below /tmp.
    munged --foreground --force --key-file "$slurm_home/munge/key" \
        --socket "$slurm_home/munge/socket" --pid-file "$slurm_home/munge/pid" \
        --log-file "$slurm_home/munge/log" --seed-file "$slurm_home/munge/seed" >/dev/null 2>&1 &
    slurm_pids=$!
    slurm_wait 10 test -S "$slurm_home/munge/socket" || return 1
    slurmctld -D >"$slurm_home/slurmctld.out" 2>&1 &
    slurm_pids="$slurm_pids $!"
    slurmd -D >"$slurm_home/slurmd.out" 2>&1 &
    slurm_pids="$slurm_pids $!"
    slurm_wait 60 slurm_answers || { tail -5 "$slurm_home"/*.log; return 1; }
}

slurm_answers() { [ "$(sinfo -h -o %t 2>/dev/null)" = idle ]; }

slurm_idle() { [ -z "$(squeue -h -o %i 2>/dev/null)" ]; }

slurm_down() {
    [ -n "${slurm_home:-}" ] || return 0
    local pid
    for pid in $(echo "${slurm_pids:-}" | tr ' ' '\n' | tac); do
        kill "$pid" 2>/dev/null || true
        wait "$pid" 2>/dev/null || true
    done
    rm -rf "$slurm_home"
    slurm_home=
}

slurm_array_rate() { # JOBS: jobs/s of an array of `true`, from sbatch to an empty queue
    local from until
    from=$(date +%s%N)
    sbatch -Q --array="0-$(($1 - 1))" -n1 -o /dev/null --wrap true >/dev/null || return 1
    slurm_wait 900 slurm_idle || return 1
    until=$(date +%s%N)
    awk -v n="$1" -v ns=$((until - from)) 'BEGIN { printf "%.1f", n * 1e9 / ns }'
}

slurm_srun_ms() { # COUNT: "p50 p99" in ms from srun to the first instruction of the program
    local i from began
    for i in $(seq "$1"); do
        from=$(date +%s%N)
        began=$(srun -n1 date +%s%N) || return 1
        echo $(((began - from) / 1000))
    done | sort -n | awk '{ us[NR] = $1 } END {
        p99 = int(NR * 0.99); if (p99 < 1) p99 = 1
        printf "%.1f %.1f", us[int((NR + 1) / 2)] / 1000, us[p99] / 1000 }'
}

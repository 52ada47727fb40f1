#!/usr/bin/env bash
# Run a command on a cluster of one node: Slurm with two CPUs, two GPUs and 40 GB in its books, whatever the machine has.
#
#   tests/cluster/slurm.sh         run tests/cluster/proof.py: a pipeline and a sweep through sbatch, then sacct; not in CI
#   tests/cluster/slurm.sh bash    a shell in which sbatch, squeue and sacct work
#
# It needs Debian's packages (root installs them), and on the PATH the project's python and papermill, and snakemake with
# snakemake-executor-plugin-slurm. The daemons have process and network namespaces of their own, with nothing but loopback,
# and end with the command. Jobs are nice, and are killed when they exceed their memory.
set -euo pipefail
PACKAGES=(slurm-wlm slurmdbd munge mariadb-server iproute2)
export PATH=$PATH:/usr/sbin

if [ -z "${CLUSTER:-}" ]; then
    if ! command -v slurmctld slurmd slurmdbd munged mariadbd ip >/dev/null; then
        apt-get update -q
        DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends "${PACKAGES[@]}"
    fi
    CLUSTER=$(mktemp -d)
    export CLUSTER
    as_root=()
    [ "$(id -u)" = 0 ] || as_root=(--user --map-root-user)
    unshare "${as_root[@]}" --net --pid --fork --kill-child --mount-proc "$0" "$@" <&0 &
    trap 'kill -KILL $! 2>/dev/null || true; wait; rm -rf "$CLUSTER"' EXIT
    wait $!
    exit
fi

# From here on as process 1 of its own namespaces: whatever it has started or mounted ends with it
ip link set lo up
ip address add 10.0.0.1/32 dev lo # slurmdbd asks for an address other than 127.0.0.1, and fails without
mount -t tmpfs none /run
mount -t tmpfs none /etc/slurm # not elsewhere, with SLURM_CONF: snakemake-executor-plugin-slurm-jobstep does not pass it on
mkdir -p -m 755 /run/munge /run/mysqld "$CLUSTER"/{state,spool}
chmod 755 "$CLUSTER"
host=$(hostname -s)
cat >/etc/slurm/slurm.conf <<END
ClusterName=loopback
SlurmctldHost=$host(127.0.0.1)
SlurmUser=root
StateSaveLocation=$CLUSTER/state
SlurmdSpoolDir=$CLUSTER/spool
SlurmctldLogFile=$CLUSTER/slurmctld.log
SlurmdLogFile=$CLUSTER/slurmd.log
SlurmdParameters=config_overrides
MailProg=/bin/true
KillWait=5
ProctrackType=proctrack/linuxproc
TaskPlugin=task/affinity
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=2
JobAcctGatherParams=OverMemoryKill
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=localhost
AccountingStoreFlags=job_comment
AccountingStorageTRES=gres/gpu
GresTypes=gpu
NodeName=$host NodeAddr=127.0.0.1 Sockets=1 CoresPerSocket=2 RealMemory=40000 Gres=gpu:2
PartitionName=main Nodes=$host Default=YES MaxTime=2-00:00:00
END
touch "$CLUSTER"/gpu{0,1} # a GPU is a file for Slurm
echo "Name=gpu File=$CLUSTER/gpu[0-1]" >/etc/slurm/gres.conf
cat >/etc/slurm/slurmdbd.conf <<END
DbdHost=localhost
SlurmUser=root
StorageType=accounting_storage/mysql
StorageUser=root
StorageLoc=slurm
LogFile=$CLUSTER/slurmdbd.log
END
chmod 600 /etc/slurm/slurmdbd.conf

answers() { # a command that succeeds once a daemon has started
    local began=$SECONDS
    until timeout 10 "$@" &>/dev/null; do
        if ((SECONDS - began > 40)); then
            tail -n 5 "$CLUSTER"/*.log >&2
            echo "no answer to: $*" >&2
            exit 1
        fi
        sleep 0.2
    done
}

(umask 077 && head -c 64 /dev/urandom >"$CLUSTER/munge.key")
munged --key-file="$CLUSTER/munge.key" --log-file="$CLUSTER/munge.log" --seed-file="$CLUSTER/munge.seed" --num-threads=10
mariadb-install-db --no-defaults --user=root --datadir="$CLUSTER/sql" --skip-test-db >"$CLUSTER/mariadb.log" 2>&1
mariadbd --no-defaults --user=root --datadir="$CLUSTER/sql" --socket=/run/mysqld/mysqld.sock --skip-networking \
    --skip-grant-tables --innodb-buffer-pool-size=64M >>"$CLUSTER/mariadb.log" 2>&1 &
answers mariadb-admin ping
slurmdbd
answers sacctmgr --immediate add cluster loopback
slurmctld
nice -n $(($(nice) < 12 ? 12 - $(nice) : 0)) slurmd
answers srun --time=1 --gpus=1 true
if [ $# = 0 ]; then
    python "$(dirname "$0")/proof.py"
else
    "$@"
fi

#!/usr/bin/env bash
#SBATCH --job-name=spiritlm --nodes=2 --ntasks-per-node=1 --exclusive --requeue --signal=B:TERM@120
#
# A Ray cluster on the nodes of a Slurm allocation, and one command on it:
#
#   sbatch --nodes=8 --gpus-per-node=4 infra/slurm/ray.sh spiritlm run base --lake s3://lake/spiritlm
#
# Every node gives Ray the cores and GPUs that Slurm gave to it. The command runs on the first one, which is a node of the
# cluster, and its exit status is that of the job. Two minutes before the job ends, or is preempted, the command gets
# SIGTERM: a training saves its step. Submitted again, or requeued, it goes on. The lake, and XDG_CACHE_HOME where the
# lake is on S3, must be storage that all nodes share. Environment: PORT of the head; RAY_TEMP, a short path.
set -euo pipefail
[ $# -gt 0 ] || { echo "usage: sbatch ray.sh COMMAND…" >&2; exit 2; }

mapfile -t nodes < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
step=(srun --nodes=1 --ntasks=1 --overlap --cpu-bind=none)
host=$("${step[@]}" --nodelist="${nodes[0]}" hostname --ip-address | awk '{print $1}')
port=${PORT:-$((20000 + SLURM_JOB_ID % 10000))}
export RAY_ADDRESS="$host:$port"
# Others on the network could run code on these nodes; the token is for this job alone.
export RAY_AUTH_MODE=token RAY_AUTH_TOKEN="${RAY_AUTH_TOKEN:-$(od -An -N32 -tx1 /dev/urandom | tr -d ' \n')}"
export DO_NOT_TRACK="${DO_NOT_TRACK:-1}" RAY_USAGE_STATS_ENABLED="${RAY_USAGE_STATS_ENABLED:-0}"

# Cores and GPUs differ from node to node, so each node looks at its own variables.
node='exec ray start --block --disable-usage-stats --num-cpus="${SLURM_CPUS_ON_NODE:-1}" --num-gpus="${SLURM_GPUS_ON_NODE:-0}" "$@"'
steps=()
start() { exec "${step[@]}" --nodelist="$1" bash -c "$node" ray "${@:2}"; }  # always with &: a process of its own
join() {  # a node that does not join, or is lost, tries again for as long as the job runs
  trap 'kill "$!" 2>/dev/null; wait; exit' TERM
  until start "$1" --address="$RAY_ADDRESS" & wait "$!"; do
    echo "$1 did not join the Ray cluster, or was lost; it tries again" >&2
    sleep 5
  done
}
trap 'kill "${steps[@]}" 2>/dev/null || true; wait' EXIT

start "${nodes[0]}" --head --port="$port" --include-dashboard=false --temp-dir="${RAY_TEMP:-/tmp/ray-$SLURM_JOB_ID}" &
steps+=($!)
until (exec 3<>"/dev/tcp/$host/$port") 2>/dev/null; do
  kill -0 "${steps[0]}" 2>/dev/null || { echo "the head of the Ray cluster ended before it was up" >&2; exit 1; }
  sleep 1
done
for name in "${nodes[@]:1}"; do  # who comes late gets shards, too
  join "$name" &
  steps+=($!)
done

"$@" &
command=$!
trap 'asked=1; kill -TERM "$command" 2>/dev/null || true' TERM
status=0
wait "$command" || status=$?
if [ -n "${asked:-}" ]; then status=0; wait "$command" || status=$?; fi  # the signal ended the first wait
exit "$status"

#!/usr/bin/env bash
# Register the deployments and start a Prefect worker; with RAY_HEAD=HOST:PORT, as a node of that Ray cluster.
#
# The driver of a run must be on a node of the cluster (never ray://), so the node joins first, with no CPU and no
# GPU of its own to give: heavy work stays on the Ray workers. Environment: PREFECT_API_URL; POOL, LIMIT (runs at
# once); DEPLOY=0 leaves the deployments as they are; SPIRITLM_HOME, where prefect.yaml lies.
set -euo pipefail
cd "${SPIRITLM_HOME:-/opt/spiritlm}"
# The worker and the node of the cluster are not our code; runs get the same, and more, from prefect.yaml.
export DO_NOT_TRACK="${DO_NOT_TRACK:-1}" RAY_USAGE_STATS_ENABLED="${RAY_USAGE_STATS_ENABLED:-0}"
# A server whose database was too slow answers 500: asked again, it costs seconds, and a run crashes without that.
export PREFECT_CLIENT_RETRY_EXTRA_CODES="${PREFECT_CLIENT_RETRY_EXTRA_CODES:-500}"
# A run that was triggered waits until a worker asks, by default every ten seconds.
export PREFECT_WORKER_QUERY_SECONDS="${PREFECT_WORKER_QUERY_SECONDS:-2}"

if [ -n "${RAY_HEAD:-}" ]; then
  ray start --address="$RAY_HEAD" --num-cpus=0 --num-gpus=0 --disable-usage-stats
  export RAY_ADDRESS="$RAY_HEAD"
fi
if [ "${DEPLOY:-1}" = 1 ]; then
  prefect work-pool inspect "${POOL:-spiritlm}" >/dev/null 2>&1 \
    || prefect --no-prompt work-pool create "${POOL:-spiritlm}" --type process
  prefect --no-prompt deploy --all </dev/null
fi
# exec: SIGTERM must reach the worker itself, which then lets its runs know.
exec prefect worker start --pool "${POOL:-spiritlm}" --type process --limit "${LIMIT:-1}"

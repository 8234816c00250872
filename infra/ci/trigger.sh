#!/usr/bin/env bash
# Start a deployment on a Prefect server, wait for its end, and say how it went by the exit status.
#
#   trigger.sh DEPLOYMENT [KEY=VALUE ...]      e.g. trigger.sh corpus/nightly recipe=quickstart lake=s3://corpora/en
#
# Values are JSON where they parse as JSON, else strings:  until=audio  refit=true  'sources=["s3://voices/en"]'
# Needs the `prefect` command. Environment: PREFECT_API_URL (required), PREFECT_API_AUTH_STRING or PREFECT_API_KEY
# (if the server asks for one), TIMEOUT (seconds to wait, default 86400).
# Exit status: 0 completed; 1 failed, crashed, cancelled, not over within TIMEOUT, or refused by the server; 2 wrong use.
set -euo pipefail

[ $# -ge 1 ] || { sed -n '2,9s/^# \{0,1\}//p' "$0" >&2; exit 2; }
case "$1" in */*) ;; *) echo "trigger.sh: write FLOW/DEPLOYMENT, for example corpus/nightly, not '$1'" >&2; exit 2 ;; esac
[ -n "${PREFECT_API_URL:-}" ] || { echo "trigger.sh: set PREFECT_API_URL, e.g. http://prefect.example:4200/api" >&2; exit 2; }

deployment=$1; shift
parameters=()
for pair in "$@"; do
  case "$pair" in *=*) parameters+=(--param "$pair") ;; *) echo "trigger.sh: '$pair' is not KEY=VALUE" >&2; exit 2 ;; esac
done

export DO_NOT_TRACK=1
# The array is expanded this way for bash before 4.4, where an empty one counts as unset.
prefect --no-prompt deployment run "$deployment" ${parameters[@]+"${parameters[@]}"} \
  --watch --watch-timeout "${TIMEOUT:-86400}" </dev/null || exit 1

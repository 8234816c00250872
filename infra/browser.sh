#!/bin/sh
# What the browser tests need: Chromium, Node.js and npm. Installs them where it may (root on Debian or Ubuntu), else names them.
set -eu

missing=""
command -v chromium >/dev/null 2>&1 || command -v chromium-browser >/dev/null 2>&1 || missing="chromium"
command -v node >/dev/null 2>&1 || missing="$missing nodejs"
command -v npm >/dev/null 2>&1 || missing="$missing npm"
[ -n "$missing" ] || exit 0

if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
  export DEBIAN_FRONTEND=noninteractive
  apt-get update -qq
  # shellcheck disable=SC2086
  apt-get install -y -qq --no-install-recommends $missing
  exit 0
fi
echo "the browser tests need$(printf ' %s' $missing): install them, or run $0 as root on Debian or Ubuntu" >&2
exit 1

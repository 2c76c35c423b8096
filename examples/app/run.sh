#!/bin/sh
# The sample app of a pod: makes its log directory on the node's disk, points /share/logs at it, and
# logs a line each second. A restart that finds the directory takes a new one.
#
#   ROOT=/tmp/pod POD_NAME=app-1 ./run.sh      # without a pod: everything below ROOT
set -eu

ROOT=${ROOT:-}
POD_LOG_DIR="$ROOT/data/${POD_NAME:?the name of the pod}/logs"
if [ -d "$POD_LOG_DIR" ]; then
  POD_LOG_DIR="$POD_LOG_DIR-$(date +%s)"
fi
mkdir -p "$POD_LOG_DIR" "$ROOT/share"
# -n: the old link is replaced, not filled.
ln -sfn "$POD_LOG_DIR" "$ROOT/share/logs"

n=0
while true; do
  n=$((n + 1))
  echo "Log $n to file" >> "$ROOT/share/logs/app.log"
  sleep 1
done

#!/bin/sh
# The sample app of a pod: makes its log directory on the node's disk, points /share/logs at it, and
# logs a line each second. A restart that finds the directory takes a new one.
#
#   ROOT=/tmp/pod POD_NAME=app-1 ./run.sh      # without a pod: everything below ROOT
set -eu
# As the first process of a container it would not end on SIGTERM by itself.
trap 'exit 0' TERM

ROOT=${ROOT:-}
POD_LOG_DIR="$ROOT/data/${POD_NAME:?the name of the pod}/logs"
if [ -d "$POD_LOG_DIR" ]; then
  POD_LOG_DIR="$POD_LOG_DIR-$(date +%s)"
fi
mkdir -p "$POD_LOG_DIR" "$ROOT/share"
# -n: the old link is replaced. Without it a link to a directory is followed, and the new link is
# made inside the old directory; the app would go on writing there. The agent ships either.
ln -sfn "$POD_LOG_DIR" "$ROOT/share/logs"

n=0
while true; do
  n=$((n + 1))
  echo "Log $n to file" >> "$ROOT/share/logs/app.log"
  # In the background, because a shell waits for a command before it looks at signals.
  sleep 1 &
  wait $!
done

#!/bin/bash
# Train on several hosts over SSH, without a scheduler: docs/howto-several-hosts.md
#     bash recipes/cluster/ssh.sh "node0 node1" RECIPE RUN_DIR
# Each host needs reszoo on the path of a login without a password. The first host has the run
# folder. If a worker was lost (200, 142, or 255: no connection), all start again, at most 10 times.
set -u
: "${3:?usage: ssh.sh \"HOST ...\" RECIPE RUN_DIR}"
read -ra names <<<"$1"
addresses=$(printf ',%s:12345' "${names[@]}")
options=(-o BatchMode=yes -o ServerAliveInterval=10 -o ServerAliveCountMax=3)

for ((try = 0; try <= 10; try++)); do
  pids=()
  for index in "${!names[@]}"; do
    printf -v command '%q ' reszoo train "$2" --run-dir "$3" --resume \
      --hosts "${addresses#,}" --host-index "$index"
    # A terminal lets a lost connection end the worker.
    ssh -tt "${options[@]}" "${names[index]}" "$command" </dev/null &
    pids+=($!)
  done
  trap 'kill "${pids[@]}" 2>/dev/null; exit 130' INT TERM
  status=0 lost=0
  for pid in "${pids[@]}"; do
    wait "$pid"
    ended=$?
    case $ended in
      0) ;;
      142 | 200 | 255) lost=200 ;;
      *) status=$ended ;;
    esac
  done
  ((status)) && exit "$status"
  ((lost)) || exit 0
  echo "a worker was lost; all workers start again" >&2
done
exit 200

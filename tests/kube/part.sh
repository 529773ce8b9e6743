#!/bin/bash
# part.sh kill|stop|start MACHINE PART: ends a part of a test cluster (`control kube-apiserver`, `control member1`, `node1
# kubelet`) by SIGKILL. What is killed comes back by itself; what is stopped, when it is started.
set -euo pipefail
. "$(dirname "$0")/cluster.sh"
what=$1 machine=$2 part=$3
cd "$dir/$machine"

end() { nsenter --target "$(first_process "$machine")" --pid --mount kill -KILL "$(cat "$part.pid")"; }
case $what in
    kill) end ;;
    stop) touch "$part.stop"; end ;;
    start) rm -f "$part.stop" ;;
    *) exit 2 ;;
esac

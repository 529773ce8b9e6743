#!/bin/bash
# keep.sh NAME COMMAND...: runs a part of a machine, and again when it ends, as an init would. Its process is in
# NAME.pid (in the machine's own numbers), what it says in NAME.log; while there is NAME.stop, it stays away. All are in
# the folder that it is called in.
set -uo pipefail

name=$1
shift
while :; do
    if [ ! -e "$name.stop" ]; then
        "$@" >>"$name.log" 2>&1 &
        echo $! >"$name.pid"
        wait $!
        echo "keep: ended with $?" >>"$name.log"
        rm -f "$name.pid"
    fi
    sleep 0.5
done

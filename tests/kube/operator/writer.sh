#!/bin/bash
# writer.sh FOLDER NAME FLAG...: writes keys NAME/1, NAME/2, ... by etcdctl with these flags, each once, until there is
# FOLDER/stop, or no FOLDER. What was acknowledged is a line of FOLDER/NAME.written (number, revision, when), what was not of
# FOLDER/NAME.failed.
set -uo pipefail
folder=$1 name=$2
shift 2
export ETCDCTL_API=3

touch "$folder/$name.written" "$folder/$name.failed"
for ((n = 1; ; n++)); do
    [ -d "$folder" ] && [ ! -e "$folder/stop" ] || exit 0
    if said=$(etcdctl "$@" --command-timeout 5s -w json put "$name/$n" "$n" 2>&1); then
        revision=${said##*\"revision\":}
        echo "$n ${revision%%[!0-9]*} $(date +%s.%N)" >>"$folder/$name.written"
    else
        echo "$n $(date +%s.%N) ${said##*\"error\":}" >>"$folder/$name.failed"
    fi
done

#!/bin/bash
# requests.sh FOLDER NAME URL FLAG...: makes VMs NAME-1, NAME-2, ... at the HTTP API by curl with these flags, asks for each,
# and takes it away again, until there is FOLDER/stop, or no FOLDER. What is refused or not answered is tried again, up to 5 times in all,
# with the same idempotency key. FOLDER/NAME.requests has a line for each request: what, its answers, when.
set -uo pipefail
folder=$1 name=$2 url=$3
shift 3
attempts=5

# request WHAT CODE CURL'S ARGUMENTS...: one that is to be answered by CODE.
request() {
    local what=$1 expected=$2 attempt code answers=
    shift 2
    for ((attempt = 1; attempt <= attempts; attempt++)); do
        code=$(curl -s -o /dev/null --max-time 10 -w '%{http_code}/%{exitcode}' "${flags[@]}" "$@")
        answers+="${answers:+,}$code"
        [[ ! $code =~ ^($expected)/0$ ]] || break
        sleep 0.2
    done
    [ "$attempt" -le "$attempts" ] || answers+=,failed
    echo "$what $answers $(date +%s.%N)" >>"$folder/$name.requests"
}

flags=("$@")
touch "$folder/$name.requests"
for ((n = 1; ; n++)); do
    [ -d "$folder" ] && [ ! -e "$folder/stop" ] || exit 0
    vm=$name-$n
    request make "201" -H 'Content-Type: application/json' -H "Idempotency-Key: $vm" "$url/api/v1/vms" \
        -d "{\"name\": \"$vm\", \"cpus\": 1, \"memory_bytes\": 1073741824, \"image\": \"images/a.img\", \"region\": \"local\", \"desired_state\": \"stopped\"}"
    request ask "200" "$url/api/v1/vms/$vm"
    # One whose answer was lost has been done.
    request remove "20[0-9]|404" -X DELETE -H 'If-Match: *' "$url/api/v1/vms/$vm"
done

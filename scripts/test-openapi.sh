#!/bin/bash
# Asks a replica of the HTTP API for all that its OpenAPI document offers, with values that fit it and values that do not, as an
# administrator and without a login, and checks that answers are as the document says (schemathesis).
#
# Where the machine cannot run it, it says why, also in test-skips.txt, and ends with 0.
#
# usage: scripts/test-openapi.sh [ARGUMENTS OF schemathesis run]      after cargo build --workspace --release
set -euo pipefail
cd "$(dirname "$0")/.."

version=4.32.5
target=$(realpath -m "${CARGO_TARGET_DIR:-target}")/release
venv=$(realpath -m "${XDG_CACHE_HOME:-$HOME/.cache}")/novacron/schemathesis-$version
skip() {
    mkdir -p "$target"
    echo "SKIP: $* [test-openapi]" | tee -a "$target/../test-skips.txt"
    exit 0
}
for program in novacron novacron-api; do
    [ -x "$target/$program" ] || skip "there is no $target/$program (cargo build --workspace --release)"
done
if [ ! -x "$venv/bin/schemathesis" ]; then
    echo "installing schemathesis $version into $venv"
    if ! { python3 -m venv "$venv" && "$venv/bin/pip" install --quiet "schemathesis==$version"; }; then
        rm -rf "$venv"
        skip "schemathesis $version cannot be installed (python3 with venv, and PyPI)"
    fi
fi

work=$(mktemp -d)
background=()
cleanup() {
    for pid in "${background[@]}"; do
        kill "$pid" 2>/dev/null || true
    done
    # They end before what they write to is gone.
    wait || true
    rm -rf "$work"
}
trap cleanup EXIT

store=23790 agents=28880 api=28080
"$target/novacron" up --data-dir "$work/store" --port $store --agent-port $agents >"$work/up.log" 2>&1 &
background+=($!)
# The agents of its nodes are asked, too: without them, what only they know is a 503.
sockets=agent-1=$work/store/agent-1/agent.sock,agent-2=$work/store/agent-2/agent.sock
settings=(--store-endpoints "http://127.0.0.1:$store" --agents-sockets "$sockets" --data-dir "$work/api" --auth-tokens true --limits-rate off
    --listen "127.0.0.1:$api" --metrics-listen off --log-level warn)
"$target/novacron-api" "${settings[@]}" >"$work/api.log" 2>&1 &
background+=($!)
for _ in $(seq 600); do
    if curl -fsS -o /dev/null "http://127.0.0.1:$api/ready" 2>/dev/null; then break; fi
    sleep 0.1
done
token=$("$target/novacron-api" "${settings[@]}" --create-token schemathesis)

# Header parameters of an operation take the place of headers that are given by flag; a login by configuration they do not.
(umask 077 && printf '[auth.openapi.token]\nbearer = "%s"\n' "$token" >"$work/schemathesis.toml")
# Whatever is asked for, an answer has a status, a kind and a schema of the document, nothing is a fault of the server, and nothing is
# answered without a login where the document asks for one.
checks=not_a_server_error,status_code_conformance,content_type_conformance,response_headers_conformance
checks+=,response_schema_conformance,negative_data_rejection,unsupported_method,ignored_auth
failed=0
# It keeps what it has found where it runs.
cd "$work"
# The stream of a job's events has no end that could be waited for, if the job has none.
"$venv/bin/schemathesis" --config-file "$work/schemathesis.toml" run "http://127.0.0.1:$api/openapi.json" \
    --url "http://127.0.0.1:$api" --exclude-path '/api/v1/jobs/{id}/events' --checks $checks --request-timeout 30 --no-color \
    --max-examples 50 "$@" || failed=1
if grep -E 'panicked|ERROR' "$work/api.log"; then
    failed=1
fi
exit $failed

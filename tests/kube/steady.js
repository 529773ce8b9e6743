// A small steady load through the Service, for as long as it is let. Half of it looks, half makes a VM's entry and removes it; half is on connections
// that are kept, half on new ones. Every request that fails is said. The one answer that is none is effect-unknown (503) to a change: the member of the
// store that had it is gone, and the change is repeated once, with its key, as the answer says; how often, `repeated` counts.
import http from "k6/http";
import exec from "k6/execution";
import { Counter } from "k6/metrics";

const url = __ENV.URL;
const login = { "Content-Type": "application/json", Authorization: `Bearer ${__ENV.TOKEN}` };
const scenario = (kept) => ({ executor: "constant-arrival-rate", rate: 5, timeUnit: "1s", duration: "10m", preAllocatedVUs: 20, maxVUs: 100, gracefulStop: "10s", env: { KEPT: kept } });

export const options = { scenarios: { kept: scenario("yes"), fresh: scenario("") } };
const answered = new Counter("answered");
const failed = new Counter("failed");
const repeated = new Counter("repeated");

function ask(method, path, body, more, expected) {
  const headers = Object.assign({}, login, more, __ENV.KEPT ? {} : { Connection: "close" });
  const send = () => http.request(method, url + path, body, { headers, timeout: "30s" });
  let answer = send();
  if (method !== "GET" && answer.status === 503 && String(answer.body).includes("effect-unknown")) {
    repeated.add(1);
    answer = send();
    // It had been done.
    if (method === "DELETE" && answer.status === 404) return answer;
  }
  // What was under way when the load was ended is nobody's fault.
  if (answer.error === "context canceled") return null;
  answered.add(1);
  if (answer.status === expected) return answer;
  failed.add(1);
  console.log(`FAILED ${new Date().toISOString()} ${method} ${path}: ${answer.status} ${answer.error} ${answer.body}`);
  return null;
}

export default function () {
  const number = exec.scenario.iterationInTest;
  if (number % 2 === 0) return void ask("GET", "/api/v1/vms?limit=5", null, {}, 200);
  const name = `steady-${__ENV.RUN}-${exec.scenario.name}-${exec.vu.idInTest}-${number}`;
  const body = JSON.stringify({ name, cpus: 1, memory_bytes: 268435456, image: "disk.img", region: "region-1", desired_state: "stopped" });
  const made = ask("POST", "/api/v1/vms", body, { "Idempotency-Key": name }, 201);
  if (made) ask("DELETE", made.headers.Location, null, { "If-Match": made.headers.Etag }, 204);
}

// Three numbers in a line.
export function handleSummary(data) {
  const count = (name) => (data.metrics[name] ? data.metrics[name].values.count : 0);
  return { stdout: `${count("answered")} requests, ${count("failed")} failed, ${count("repeated")} repeated\n` };
}

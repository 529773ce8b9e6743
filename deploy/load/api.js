// Load on the HTTP API: 1,000 users who mostly look and sometimes change. By hand:
//
//   k6 run -e URL=http://127.0.0.1:8080 -e TOKEN=nct_... deploy/load/api.js
//
// The API takes 100 requests a second of each client by default (limits.rate): the users of this test are one client, so the replicas under
// test need `limits.rate: off`, or as many tokens as users.
import http from "k6/http";
import { check, sleep } from "k6";
import exec from "k6/execution";

const url = __ENV.URL || "http://127.0.0.1:8080";
const users = Number(__ENV.USERS || 1000);
const hold = __ENV.HOLD || "5m";
const ramp = __ENV.RAMP || "1m";

export const options = {
  scenarios: {
    users: {
      executor: "ramping-vus",
      startVUs: 0,
      stages: [
        { duration: ramp, target: users },
        { duration: hold, target: users },
        { duration: "30s", target: 0 },
      ],
    },
  },
  thresholds: {
    // 99.9 % of requests are answered as they should be, 99 % of them within a second.
    checks: ["rate>=0.999"],
    http_req_failed: ["rate<=0.001"],
    http_req_duration: ["p(99)<1000"],
  },
};

const headers = { "Content-Type": "application/json" };
if (__ENV.TOKEN) headers.Authorization = `Bearer ${__ENV.TOKEN}`;

export default function () {
  const list = http.get(`${url}/api/v1/vms?limit=50`, { headers, tags: { name: "list" } });
  check(list, { "list: 200": (answer) => answer.status === 200 });

  // One user in ten makes a VM's entry and removes it.
  if (exec.vu.idInTest % 10 === 0) {
    const name = `load-${exec.vu.idInTest}-${exec.vu.iterationInScenario}`;
    const body = JSON.stringify({ name, cpus: 1, memory_bytes: 268435456, image: "disk.img", region: __ENV.REGION || "region-1", desired_state: "stopped" });
    const made = http.post(`${url}/api/v1/vms`, body, { headers: { ...headers, "Idempotency-Key": name }, tags: { name: "create" } });
    check(made, { "create: 201": (answer) => answer.status === 201 });
    if (made.status === 201) {
      const entry = `${url}${made.headers.Location}`;
      const gone = http.del(entry, null, { headers: { ...headers, "If-Match": made.headers.Etag }, tags: { name: "delete" } });
      check(gone, { "delete: 204": (answer) => answer.status === 204 });
    }
  }
  sleep(1);
}

// Parts of the page that need no browser.

import { expect, test } from "@playwright/test";
import { alarms } from "../src/alarms";
import { Parser } from "../src/events";
import { bytes, milliseconds, percent, seconds } from "../src/format";
import { Model } from "../src/model";
import { byRegion, matrix } from "../src/paths";
import { delayMs } from "../src/poll";
import { Rates, speeds } from "../src/rates";
import type { Job, Region, Replication } from "../src/schema";

function job(done: number, more: Partial<Job> = {}): Job {
  return {
    id: "1",
    work: { kind: "migrate", vm: "v", from: "a", to: "b", region: "r", to_region: null },
    state: "running",
    progress: { done, total: 100 },
    attempts: 1,
    created_ms: 0,
    ended_ms: null,
    replica: null,
    error: null,
    cancel_asked: false,
    ...more,
  };
}

test("events are whole however their text is cut", () => {
  const text = ": hello\n\nid: 7\nevent: progress\ndata: {\"a\":1}\n\ndata: x\r\ndata: y\r\n\r\nid: 9\n\n";
  const expected = [
    { id: "7", name: "progress", data: '{"a":1}' },
    { id: "7", name: "message", data: "x\ny" },
  ];
  expect(new Parser().push(text)).toEqual(expected);
  // A carriage return that is cut from its line feed is not what the API sends.
  const plain = text.replaceAll("\r", "");
  for (let step = 1; step < 9; step += 1) {
    const parser = new Parser();
    const events = [];
    for (let at = 0; at < plain.length; at += step) {
      events.push(...parser.push(plain.slice(at, at + step)));
    }
    expect(events).toEqual(expected);
  }
  expect(() => new Parser().push("x".repeat(2 << 20))).toThrow();
});

test("it is asked more and more seldom", () => {
  expect([0, 1, 2, 3, 9, 99].map((failures) => delayMs(failures, 0, 0.5))).toEqual([2000, 4000, 8000, 16000, 30000, 30000]);
  expect(delayMs(1, 0, 0)).toBe(3000);
  expect(delayMs(1, 60, 0)).toBe(60000);
});

test("rates are of what came between two points, and begin anew with an attempt", () => {
  const rates = new Rates();
  rates.add("k", "l", 0, true, 1000);
  rates.add("k", "l", 10, true, 1100);
  rates.add("k", "l", 500, true, 1500);
  rates.add("k", "l", 1500, true, 2500);
  const series = rates.of("k");
  expect(series && speeds(series)).toEqual([
    { atMs: 1500, bytesPerSecond: 1000 },
    { atMs: 2500, bytesPerSecond: 1000 },
  ]);
  rates.add("k", "l", 5, true, 3500);
  expect(rates.of("k")?.points).toEqual([{ atMs: 3500, done: 5 }]);
  rates.add("ended", "l", 5, false, 3500);
  expect(rates.of("ended")).toBeUndefined();
  for (let at = 0; at < 1000; at += 1) {
    rates.add("k", "l", at, true, 4000 + 500 * at);
    rates.add(`k${at}`, "l", at, true, 4000);
  }
  expect(rates.series.length).toBe(32);
});

test("of two answers about a job the newer counts", () => {
  const model = new Model();
  model.setJob(job(50), 0);
  model.setJobs([job(40)], 0);
  expect(model.jobs[0]?.progress.done).toBe(50);
  model.setJob(job(10, { attempts: 2 }), 0);
  expect(model.jobs[0]?.progress.done).toBe(10);
  model.setJob(job(10, { attempts: 2, state: "done" }), 0);
  model.setJobs([job(10, { attempts: 2 })], 0);
  expect(model.jobs[0]?.state).toBe("done");
  model.setJobs([], 0);
  expect(model.jobs).toEqual([]);
});

test("numbers are read with units", () => {
  expect([0, 1023, 1024, 1536, 150 * 1024, 5 << 20].map(bytes)).toEqual(["0 B", "1023 B", "1.0 KiB", "1.5 KiB", "150 KiB", "5.0 MiB"]);
  expect([0, 0.00001, 0.5].map(percent)).toEqual(["0 %", "< 0.01 %", "50.00 %"]);
  expect([0.123, 45.67].map(milliseconds)).toEqual(["0.12 ms", "45.7 ms"]);
  expect([1.25, 59, 61, 3700].map(seconds)).toEqual(["1.3 s", "59 s", "1 min 1 s", "1 h 1 min"]);
});

function cluster(nodes: number): Model {
  const model = new Model();
  const names = Array.from({ length: nodes }, (_, at) => `n${String(at).padStart(2, "0")}`);
  const region = (name: string): string => (Number(name.slice(1)) % 2 ? "odd" : "even");
  model.setNodes(names.map((name) => ({ name, address: "", region: region(name) })));
  model.rows = names.map((from) => ({
    from,
    region: region(from),
    age_seconds: 1,
    paths: names
      .filter((to) => to !== from)
      .map((to) => ({ to, rtt_ms: Number(to.slice(1)), rtt_min_ms: 0, jitter_ms: null, loss_ratio: to === "n01" ? 0.02 : 0 })),
  }));
  return model;
}

test("the matrix is of nodes, and of regions where there are many", () => {
  const few = matrix(cluster(4));
  expect([few.of, few.names]).toEqual(["nodes", ["n00", "n01", "n02", "n03"]]);
  expect(few.cell("n00", "n03")?.rttMs).toBe(3);
  expect(few.cell("n00", "n00")).toBeUndefined();
  const many = matrix(cluster(20));
  expect([many.of, many.names]).toEqual(["regions", ["even", "odd"]]);
  expect(many.cell("even", "odd")).toEqual({ rttMs: 11, lossRatio: 0.02, jitterMs: null, paths: 100 });
  expect(byRegion(new Model()).names).toEqual([]);
});

test("alarms are made of what is wrong", () => {
  const model = cluster(3);
  const keys = (): string[] => alarms(model, 0).map((alarm) => alarm.key);
  expect(keys()).toEqual(["loss n00 n01", "loss n02 n01"]);
  model.rows = [];
  model.setSilent("n02", "why");
  model.vms = [{ name: "v", cpus: 1, memory_bytes: 1, region: "odd", desired_state: "running", node: "gone" }];
  model.members = [{ id: "1", name: "m1", client_urls: [], is_learner: false, status: null }];
  model.setJobs([job(1, { state: "failed", ended_ms: 0, error: "e" })], 0);
  expect(keys()).toEqual(["leader", "member 1", "node n02", "vm v", "job 1"]);
  model.setNodes([]);
  expect(keys()).not.toContain("node n02");
});

test("alarms of regions are those of their replication", () => {
  const model = new Model();
  const keys = (): string[] => alarms(model, 0).map(({ level, key }) => `${level} ${key}`);
  const region = (name: string, more: Partial<Replication>): Region => ({
    name,
    replication: { is_this_one: false, removed: false, connected: true, lag_ms: 300_000, alarms: [], ...more },
  });
  const alarm = (kind: string): Replication["alarms"][number] => ({ kind, count: 2, text: "why" });
  model.regions = [{ name: "alone", replication: null }, region("us", {}), region("here", { is_this_one: true, connected: false })];
  expect(keys()).toEqual([]);
  model.regions = [
    region("gone", { removed: true, connected: false, lag_ms: 1e9, alarms: [alarm("forgotten")] }),
    region("us", { connected: false, lag_ms: 300_001, alarms: ["clock_ahead", "forgotten", "behind", "differs", "busy", "new"].map(alarm) }),
  ];
  expect(keys()).toEqual([
    ...["lag of us", "forgotten us", "behind us", "new us"].map((key) => `bad ${key}`),
    ...["connection us", "clock_ahead us", "differs us", "busy us"].map((key) => `warn ${key}`),
  ]);
  const texts = alarms(model, 0).map(({ text }) => text);
  expect(texts).toContain("Region us: forgotten, 2 times: why");
  expect(texts).toContain("Region us has not heard of changes for 5 min 0 s");
});

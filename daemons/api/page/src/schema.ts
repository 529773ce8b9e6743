// What the API answers, as far as the page reads it (/openapi.json has all of it).

export interface Health {
  ready: boolean;
  store_answers: boolean;
  draining: boolean;
  replica: string;
  version: string;
}

export interface Node {
  name: string;
  address: string;
  region: string | null;
}

/** What the store says of its replication with a region. */
export interface Replication {
  is_this_one: boolean;
  removed: boolean;
  connected: boolean;
  lag_ms: number;
  alarms: { kind: string; count: number; text: string }[];
}

export interface Region {
  name: string;
  replication: Replication | null;
}

export interface Path {
  to: string;
  rtt_ms: number;
  rtt_min_ms: number;
  jitter_ms: number | null;
  loss_ratio: number;
}

/** How one node reaches others. */
export interface Row {
  from: string;
  region: string | null;
  age_seconds: number;
  paths: Path[];
}

export interface Transfer {
  id: number;
  key: string | null;
  direction: "send" | "receive";
  peer: string;
  from: string | null;
  to: string | null;
  state: "running" | "done" | "failed" | "cancelled";
  error: string | null;
  bytes_total: number;
  bytes_done: number;
  bytes_moved: number;
  seconds: number;
}

export interface Capability {
  name: string;
  state: "yes" | "degraded" | "no" | "unknown";
  detail: string;
}

export interface Member {
  id: string;
  name: string;
  client_urls: string[];
  is_learner: boolean;
  status: {
    is_leader: boolean;
    version: string;
    term: number;
    index: number;
    applied_index: number;
    data_bytes: number;
    errors: string[];
  } | null;
}

export interface Vm {
  name: string;
  cpus: number;
  memory_bytes: number;
  region: string;
  desired_state: string;
  node?: string | null;
}

export type JobState = "queued" | "running" | "done" | "failed" | "cancelled";

export type Work =
  | { kind: "move_region"; from: string; to: string }
  | { kind: "migrate"; vm: string; from: string; to: string; region: string; to_region: string | null };

export interface Job {
  id: string;
  work: Work;
  state: JobState;
  progress: { done: number; total: number | null };
  attempts: number;
  created_ms: number;
  ended_ms: number | null;
  replica: string | null;
  error: string | null;
  cancel_asked: boolean;
}

export type Migration = Job & { work: Extract<Work, { kind: "migrate" }> };

export interface List<T> {
  items: T[];
  next?: string | null;
}

export function isMigration(job: Job): job is Migration {
  return job.work.kind === "migrate";
}

export function hasEnded(job: Job): boolean {
  return job.state !== "queued" && job.state !== "running";
}

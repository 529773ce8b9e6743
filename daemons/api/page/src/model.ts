// All that the page knows, as it was answered last.

import type { Problem } from "./api";
import { Rates } from "./rates";
import { hasEnded, isMigration, type Health, type Job, type Member, type Migration, type Node, type Region, type Row, type Transfer, type Vm } from "./schema";

export type Source = "health" | "nodes" | "regions" | "paths" | "members" | "vms" | "jobs" | "transfers";

/** A transfer, and the node that tells of it. */
export interface Told extends Transfer {
  node: string;
}

export class Model {
  health: Health | null = null;
  nodes: Node[] = [];
  regions: Region[] = [];
  rows: Row[] = [];
  members: Member[] = [];
  vms: Vm[] = [];
  /** The newest first. */
  jobs: Job[] = [];
  readonly rates = new Rates();
  /** Why what a source has told is old. */
  readonly problems = new Map<Source, Problem>();
  /** When the server answered last, in milliseconds since 1970. */
  answeredMs = 0;
  private readonly byNode = new Map<string, Transfer[]>();
  /** Nodes whose agent could not be asked, and why. */
  readonly silent = new Map<string, string>();

  get migrations(): Migration[] {
    return this.jobs.filter(isMigration);
  }

  /** Those that go on are the first. */
  get transfers(): Told[] {
    const all = [...this.byNode].flatMap(([node, transfers]) => transfers.map((transfer) => ({ ...transfer, node })));
    const runs = (transfer: Told): number => (transfer.state === "running" ? 0 : 1);
    return all.sort((a, b) => runs(a) - runs(b) || a.seconds - b.seconds);
  }

  setNodes(nodes: Node[]): void {
    this.nodes = nodes;
    const names = new Set(nodes.map((node) => node.name));
    for (const known of [this.byNode, this.silent]) {
      for (const name of known.keys()) {
        if (!names.has(name)) {
          known.delete(name);
        }
      }
    }
  }

  setTransfers(node: string, transfers: Transfer[], nowMs: number): void {
    this.silent.delete(node);
    this.byNode.set(node, transfers);
    const jobs = new Set(this.jobs.map((job) => job.id));
    for (const transfer of transfers) {
      // Those of migrations are seen there, and one that both ends tell of is seen at its sender.
      if (transfer.direction === "send" && !jobs.has(transfer.key ?? "")) {
        const label = `Transfer of ${transfer.from ?? "?"} from ${node} to ${transfer.peer}`;
        const isRunning = transfer.state === "running";
        this.rates.add(`${node}/${transfer.id}`, label, transfer.bytes_done, isRunning, nowMs);
      }
    }
  }

  setSilent(node: string, why: string): void {
    this.byNode.delete(node);
    this.silent.set(node, why);
  }

  setJobs(jobs: Job[], nowMs: number): void {
    const known = new Map(this.jobs.map((job) => [job.id, job]));
    this.jobs = jobs.map((job) => newer(known.get(job.id), job)).sort((a, b) => (a.id < b.id ? 1 : -1));
    this.migrations.forEach((job) => this.sample(job, nowMs));
  }

  setJob(job: Job, nowMs: number): void {
    const others = this.jobs.filter((other) => other.id !== job.id);
    const known = this.jobs.find((other) => other.id === job.id);
    this.setJobs([...others, newer(known, job)], nowMs);
  }

  private sample(job: Migration, nowMs: number): void {
    const label = `Migration of ${job.work.vm} from ${job.work.from} to ${job.work.to}`;
    this.rates.add(job.id, label, job.progress.done, !hasEnded(job), nowMs);
  }
}

/** Of two answers about one job, the newer: a list may have been on its way while an event came. */
function newer(known: Job | undefined, told: Job): Job {
  if (!known || hasEnded(told) || told.attempts > known.attempts) {
    return told;
  }
  const isOlder = hasEnded(known) || told.progress.done < known.progress.done || (known.cancel_asked && !told.cancel_asked);
  return isOlder ? known : told;
}

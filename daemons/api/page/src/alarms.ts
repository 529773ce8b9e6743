// What somebody should look at, made of all that is known.

import { el, keyed, setAttribute, setText } from "./dom";
import { percent, seconds } from "./format";
import type { Model } from "./model";
import { Section, type View } from "./section";

/** Entries of the log that a member may be behind the leader. */
const LAG_MAX = 1000;
/** How long another region may not have heard of a change, as the alert NovaCronConsensusReplicationLagging has it. */
const REPLICATION_LAG_MS_MAX = 5 * 60 * 1000;
/** Alarms of regions that repair themselves, or wait; of others data is lost. */
const MILD = new Set(["busy", "clock_ahead", "differs"]);
const LOSS_RATIO_MAX = 0.01;
/** Agents tell each other of their paths more often. */
const AGE_SECONDS_MAX = 30;
/** How long what has failed is an alarm. */
const FAILED_MS_MAX = 60 * 60 * 1000;

export interface Alarm {
  key: string;
  level: "bad" | "warn";
  text: string;
}

export function alarms(model: Model, nowMs: number): Alarm[] {
  const found: Alarm[] = [];
  const add = (level: Alarm["level"], key: string, text: string): void => void found.push({ key, level, text });
  replica(model, add);
  members(model, add);
  regions(model, add);
  nodes(model, add);
  jobs(model, nowMs, add);
  return found.sort((a, b) => a.level.localeCompare(b.level));
}

type Add = (level: Alarm["level"], key: string, text: string) => void;

function replica(model: Model, add: Add): void {
  const away = model.problems.get("health");
  if (away && away.status !== 401) {
    add("bad", "server", `The API does not answer as it should: ${away.message}`);
  } else if (model.health && !model.health.store_answers) {
    add("bad", "store", "The store does not answer: nothing can be changed");
  } else if (model.health?.draining) {
    add("warn", "draining", `The replica ${model.health.replica} of the API drains`);
  }
}

function members(model: Model, add: Add): void {
  const leader = model.members.find((member) => member.status?.is_leader);
  if (model.members.length && !leader) {
    add("bad", "leader", "The store has no leader");
  }
  for (const member of model.members) {
    const name = member.name || member.id;
    if (!member.status) {
      add("bad", `member ${member.id}`, `Member ${name} of the store does not answer`);
      continue;
    }
    const behind = (leader?.status?.index ?? 0) - member.status.applied_index;
    if (behind > LAG_MAX) {
      add("warn", `lag ${member.id}`, `Member ${name} is ${behind} entries behind the leader`);
    }
    member.status.errors.forEach((error) => add("bad", `member ${member.id} ${error}`, `Member ${name}: ${error}`));
  }
}

function regions(model: Model, add: Add): void {
  for (const { name, replication } of model.regions) {
    if (!replication || replication.removed) {
      continue;
    }
    if (!replication.is_this_one && !replication.connected) {
      add("warn", `connection ${name}`, `The store has no connection to region ${name}`);
    }
    if (replication.lag_ms > REPLICATION_LAG_MS_MAX) {
      add("bad", `lag of ${name}`, `Region ${name} has not heard of changes for ${seconds(replication.lag_ms / 1000)}`);
    }
    for (const { kind, count, text } of replication.alarms) {
      add(MILD.has(kind) ? "warn" : "bad", `${kind} ${name}`, `Region ${name}: ${kind}, ${count === 1 ? "once" : `${count} times`}: ${text}`);
    }
  }
}

function nodes(model: Model, add: Add): void {
  for (const [node, why] of model.silent) {
    add("bad", `node ${node}`, `The agent of ${node} cannot be asked: ${why}`);
  }
  for (const vm of model.vms) {
    if (vm.node && model.nodes.length && !model.nodes.some((node) => node.name === vm.node)) {
      add("bad", `vm ${vm.name}`, `VM ${vm.name} is on ${vm.node}, whose agent does not run`);
    }
  }
  for (const row of model.rows) {
    if (row.age_seconds > AGE_SECONDS_MAX) {
      add("warn", `age ${row.from}`, `${row.from} has told nothing of its paths for ${seconds(row.age_seconds)}`);
    }
    for (const path of row.paths) {
      if (path.loss_ratio >= LOSS_RATIO_MAX) {
        add("warn", `loss ${row.from} ${path.to}`, `${row.from} to ${path.to} loses ${percent(path.loss_ratio)}`);
      }
    }
  }
}

function jobs(model: Model, nowMs: number, add: Add): void {
  for (const job of model.jobs) {
    if (job.state === "failed" && nowMs - (job.ended_ms ?? 0) < FAILED_MS_MAX) {
      const what = job.work.kind === "migrate" ? `The migration of ${job.work.vm} to ${job.work.to}` : `Job ${job.id}`;
      add("bad", `job ${job.id}`, `${what} has failed: ${job.error ?? "it does not say why"}`);
    }
  }
}

export class AlarmsView implements View {
  private readonly items = el("ul", { class: "alarms" });
  private readonly none = el("p", { class: "note" });
  readonly section = new Section("alarms", "Alarms", [], this.items, this.none);

  update(model: Model): void {
    const found = alarms(model, Date.now());
    keyed(this.items, found.map((alarm) => alarm.key), () => el("li")).forEach((item, at) => {
      setAttribute(item, "data-level", found[at]?.level ?? "warn");
      setText(item, found[at]?.text ?? "");
    });
    setText(this.none, found.length ? "" : "None.");
    // An empty list is read out as one.
    this.items.hidden = found.length === 0;
  }
}

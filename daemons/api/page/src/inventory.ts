// The sections of VMs and jobs.

import { bytes, time } from "./format";
import { levelOf, stateOf } from "./migrations";
import type { Model } from "./model";
import type { Job, Vm } from "./schema";
import { Section, type View } from "./section";
import { Table } from "./table";

export class VmsView implements View {
  private readonly table = new Table<Vm>(
    "VMs, as they should be",
    [
      { head: "VM", text: (vm) => vm.name },
      { head: "Region", text: (vm) => vm.region },
      { head: "Node", text: (vm) => vm.node ?? "" },
      { head: "State", text: (vm) => vm.desired_state },
      { head: "CPUs", text: (vm) => String(vm.cpus), isNumber: true },
      { head: "Memory", text: (vm) => bytes(vm.memory_bytes), isNumber: true },
    ],
    (vm) => vm.name,
    "No VMs.",
  );
  readonly section = new Section("vms", "VMs", ["vms"], this.table.element);

  update(model: Model): void {
    this.table.update(model.vms);
  }
}

export class JobsView implements View {
  private readonly table = new Table<Job>(
    "Jobs, the newest first",
    [
      { head: "Job", text: (job) => job.id },
      { head: "What", text: what },
      { head: "State", text: stateOf, level: (job) => levelOf(job.state) },
      { head: "Attempts", text: (job) => String(job.attempts), isNumber: true },
      { head: "Replica", text: (job) => job.replica ?? "" },
      { head: "Begun", text: (job) => time(job.created_ms) },
      { head: "Ended", text: (job) => (job.ended_ms ? time(job.ended_ms) : "") },
      { head: "Error", text: (job) => job.error ?? "" },
    ],
    (job) => job.id,
    "No jobs.",
  );
  readonly section = new Section("jobs", "Jobs", ["jobs"], this.table.element);

  update(model: Model): void {
    this.table.update(model.jobs);
  }
}

function what({ work }: Job): string {
  return work.kind === "migrate" ? `migrate ${work.vm} to ${work.to}` : `move VMs of region ${work.from} to ${work.to}`;
}

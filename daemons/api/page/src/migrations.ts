// The section of migrations: how they go, a form that starts one, and a button for the end of each.

import { Problem, idempotencyKey, post } from "./api";
import type { Dialogs } from "./dialogs";
import { el, keyed, once, setAttribute, setText } from "./dom";
import { bytes, time } from "./format";
import type { Model } from "./model";
import { Plot } from "./plot";
import { hasEnded, type Job, type JobState, type Migration, type Vm } from "./schema";
import { Section, type View } from "./section";
import { Table, type Level } from "./table";

const PATH = "/api/v1/dwcp/migrations";
/** Plots at a time. */
const PLOTS_MAX = 4;

export function levelOf(state: JobState): Level {
  return state === "failed" ? "bad" : state === "done" ? "good" : state === "cancelled" ? "warn" : "none";
}

export function stateOf(job: Job): string {
  return job.cancel_asked && !hasEnded(job) ? `${job.state}, to be cancelled` : job.state;
}

/** A bar, and the same in words. */
export function fillProgress(cell: HTMLElement, label: string, done: number, total: number | null): void {
  const box = once(cell, () => el("div", { class: "progress" }, el("progress"), el("span")));
  const [bar, words] = [box.children[0] as HTMLProgressElement, box.children[1] as HTMLElement];
  setAttribute(bar, "aria-label", label);
  setAttribute(bar, "max", total || 1);
  setAttribute(bar, "value", total ? Math.min(done, total) : 0);
  const percent = total ? `${Math.floor((100 * done) / total)} %, ` : "";
  setText(words, `${percent}${bytes(done)}${total ? ` of ${bytes(total)}` : ""}`);
}

export class MigrationsView implements View {
  private readonly table: Table<Migration>;
  private readonly plots = el("div", { class: "plots" });
  private readonly drawn = new Map<string, Plot>();
  private readonly form: StartForm;
  readonly section: Section;

  constructor(
    private readonly dialogs: Dialogs,
    private readonly changed: (job: Job) => void,
  ) {
    this.form = new StartForm(changed);
    this.table = new Table<Migration>(
      "Migrations, the newest first",
      [
        { head: "VM", text: (job) => job.work.vm },
        { head: "From", text: (job) => job.work.from },
        { head: "To", text: (job) => job.work.to },
        { head: "State", text: stateOf, level: (job) => levelOf(job.state) },
        { head: "Progress", fill: (cell, job) => fillProgress(cell, `Migration of ${job.work.vm}`, job.progress.done, job.progress.total) },
        { head: "Begun", text: (job) => time(job.created_ms) },
        { head: "Error", text: (job) => job.error ?? "" },
        { head: "Action", fill: (cell, job) => this.fillAction(cell, job) },
      ],
      (job) => job.id,
      "No migrations.",
    );
    this.section = new Section("migrations", "Migrations", ["jobs"], this.form.element, this.table.element, this.plots);
  }

  update(model: Model): void {
    this.form.update(model);
    this.table.update(model.migrations);
    const shown = model.rates.series.filter((series) => series.points.length > 1).slice(-PLOTS_MAX).reverse();
    const plots = keyed(this.plots, shown.map((series) => series.key), (key) => {
      const plot = new Plot();
      this.drawn.set(key, plot);
      return plot.element;
    });
    plots.forEach((_, at) => {
      const series = shown[at];
      if (series) {
        this.drawn.get(series.key)?.update(series);
      }
    });
  }

  private fillAction(cell: HTMLElement, job: Migration): void {
    if (hasEnded(job)) {
      // Focus must not fall out of the page with the button that had it.
      const hadFocus = cell.contains(document.activeElement);
      cell.replaceChildren();
      if (hadFocus) {
        this.section.element.focus({ preventScroll: true });
      }
      return;
    }
    const button = once(cell, () => {
      const made = el("button", { type: "button", "aria-label": `Cancel the migration of ${job.work.vm}` }, "Cancel");
      made.addEventListener("click", () => void this.cancel(job));
      return made;
    });
    button.disabled = job.cancel_asked;
  }

  private async cancel(job: Migration): Promise<void> {
    const question = `Cancel the migration of ${job.work.vm} to ${job.work.to}?`;
    if (!(await this.dialogs.confirm(question, "It stays on the node that it is on. What has arrived is kept for the next migration.", "Cancel it", "Go on with it"))) {
      return;
    }
    try {
      this.changed(await post<Job>(`${PATH}/${encodeURIComponent(job.id)}/cancel`, undefined));
    } catch (error) {
      this.form.say(error instanceof Problem ? error.message : String(error));
    }
  }
}

/** Starts a migration. */
class StartForm {
  private readonly vm = el("select", { id: "start-vm", name: "vm", required: true });
  private readonly to = el("select", { id: "start-to", name: "to", required: true });
  private readonly button = el("button", { type: "submit", class: "main" }, "Start the migration");
  private readonly error = el("p", { class: "problem", role: "alert" });
  private vms: Vm[] = [];
  private nodes: string[] = [];
  /** Of the request, until it is known what became of it: repeated with it, it is done once. */
  private asked: { body: string; key: string } | null = null;
  readonly element = el(
    "form",
    { class: "start", "aria-label": "Start a migration" },
    el("p", {}, el("label", { for: "start-vm" }, "VM"), this.vm),
    el("p", {}, el("label", { for: "start-to" }, "to node"), this.to),
    this.button,
    this.error,
  );

  constructor(private readonly started: (job: Job) => void) {
    this.vm.addEventListener("change", () => this.writeTargets());
    this.element.addEventListener("submit", (event) => {
      event.preventDefault();
      void this.start();
    });
  }

  update(model: Model): void {
    this.vms = model.vms;
    this.nodes = model.nodes.map((node) => node.name);
    writeOptions(this.vm, this.vms.map((vm) => [vm.name, vm.node ? `${vm.name}, on ${vm.node}` : vm.name]));
    this.writeTargets();
    const cannot = !this.vm.value || !this.to.value;
    // A button that is disabled while it has the focus loses it.
    setAttribute(this.button, "aria-disabled", cannot);
  }

  say(text: string): void {
    setText(this.error, text);
  }

  private writeTargets(): void {
    const from = this.vms.find((vm) => vm.name === this.vm.value)?.node;
    writeOptions(this.to, this.nodes.filter((node) => node !== from).map((node) => [node, node]));
  }

  private async start(): Promise<void> {
    const body = { vm: this.vm.value, to: this.to.value };
    if (!body.vm || !body.to) {
      this.say("There is no VM, or no node that it could go to.");
      return;
    }
    const text = JSON.stringify(body);
    if (this.asked?.body !== text) {
      this.asked = { body: text, key: idempotencyKey() };
    }
    try {
      const job = await post<Job>(PATH, body, this.asked.key);
      this.asked = null;
      this.say("");
      this.started(job);
    } catch (error) {
      if (error instanceof Problem && error.status >= 400 && error.status < 500) {
        this.asked = null;
      }
      this.say(error instanceof Problem ? error.message : String(error));
    }
  }
}

/** Keeps what is chosen, if it is still there. */
function writeOptions(select: HTMLSelectElement, options: [value: string, text: string][]): void {
  const made = keyed(select, options.map(([value]) => value), (value) => el("option", { value }));
  made.forEach((option, at) => setText(option, options[at]?.[1] ?? ""));
}

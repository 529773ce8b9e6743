// The section of nodes, with what each can do for who wants to know.

import { Problem, get } from "./api";
import { el, keyed, setText } from "./dom";
import type { Model } from "./model";
import type { Capability, List, Node } from "./schema";
import { Section, type View } from "./section";
import { Table, type Level } from "./table";

const LEVELS: Record<Capability["state"], Level> = { yes: "good", degraded: "warn", no: "none", unknown: "none" };

export class NodesView implements View {
  private silent: ReadonlyMap<string, string> = new Map();
  private vms = new Map<string, number>();
  private readonly table = new Table<Node>(
    "Nodes whose agent runs",
    [
      { head: "Node", text: (node) => node.name },
      { head: "Region", text: (node) => node.region ?? "" },
      { head: "Address", text: (node) => node.address },
      { head: "VMs", text: (node) => String(this.vms.get(node.name) ?? 0), isNumber: true },
      {
        head: "Agent",
        text: (node) => (this.silent.has(node.name) ? "cannot be asked" : "answers"),
        level: (node) => (this.silent.has(node.name) ? "bad" : "good"),
      },
    ],
    (node) => node.name,
    "No nodes.",
  );
  private readonly abilities = el("div", { class: "abilities" });
  readonly section = new Section("nodes", "Nodes", ["nodes"], this.table.element, this.abilities);

  update(model: Model): void {
    this.silent = model.silent;
    this.vms = new Map();
    for (const { node } of model.vms) {
      if (node) {
        this.vms.set(node, (this.vms.get(node) ?? 0) + 1);
      }
    }
    this.table.update(model.nodes);
    keyed(this.abilities, model.nodes.map((node) => node.name), abilities);
  }
}

/** What a node can do: asked when it is opened, since the agent looks at its machine for it. */
function abilities(node: string): HTMLElement {
  const table = new Table<Capability>(
    `What ${node} can do`,
    [
      { head: "Ability", text: (found) => found.name },
      { head: "State", text: (found) => found.state, level: (found) => LEVELS[found.state] },
      { head: "How, or why not", text: (found) => found.detail },
    ],
    (found) => found.name,
    "",
  );
  const problem = el("p", { class: "problem", role: "status" });
  const details = el("details", {}, el("summary", {}, `What ${node} can do`), problem, table.element);
  details.addEventListener("toggle", async () => {
    if (!details.open) {
      return;
    }
    try {
      const found = await get<List<Capability>>(`/api/v1/nodes/${encodeURIComponent(node)}/capabilities`);
      table.update(found.items);
      setText(problem, "");
    } catch (error) {
      setText(problem, error instanceof Problem ? error.message : String(error));
    }
  });
  return details;
}

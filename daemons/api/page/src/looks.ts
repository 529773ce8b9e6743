// What is asked of the API, each by itself: one that is not answered keeps no other from being.

import { Problem, get, list } from "./api";
import type { Model, Source } from "./model";
import { poll } from "./poll";
import type { Health, Job, List, Member, Node, Region, Row, Transfer, Vm } from "./schema";

/** Agents that are asked for their transfers at a time; with more nodes they take turns. */
const AGENTS_MAX = 8;

/** Begins; `changed` is called after each answer. Returns what looks at everything at once. */
export function look(model: Model, changed: () => void): () => void {
  const sources: Record<Source, (signal: AbortSignal) => Promise<void>> = {
    health: async (signal) => {
      model.health = await get<Health>("/api/v1/health", signal);
    },
    nodes: async (signal) => model.setNodes(await list<Node>("/api/v1/nodes", signal)),
    regions: async (signal) => {
      model.regions = (await get<List<Region>>("/api/v1/regions", signal)).items;
    },
    paths: async (signal) => {
      model.rows = (await get<List<Row>>("/api/v1/paths", signal)).items;
    },
    members: async (signal) => {
      model.members = (await get<List<Member>>("/api/v1/consensus/members", signal)).items;
    },
    vms: async (signal) => {
      model.vms = await list<Vm>("/api/v1/vms", signal);
    },
    // What has ended long ago is not of interest here.
    jobs: async (signal) => model.setJobs(await list<Job>("/api/v1/jobs", signal, "&history=false"), Date.now()),
    transfers: transfersOf(model),
  };
  const wakes = (Object.keys(sources) as Source[]).map((source) =>
    poll(sources[source], (problem) => {
      if (problem) {
        model.problems.set(source, problem);
      } else {
        model.problems.delete(source);
        model.answeredMs = Date.now();
      }
      changed();
    }),
  );
  return () => wakes.forEach((wake) => wake());
}

function transfersOf(model: Model): (signal: AbortSignal) => Promise<void> {
  let turn = 0;
  return async (signal) => {
    const nodes = model.nodes;
    const asked = Array.from({ length: Math.min(AGENTS_MAX, nodes.length) }, (_, at) => nodes[(turn + at) % nodes.length] as Node);
    turn += asked.length;
    await Promise.all(asked.map(({ name }) => transfers(model, name, signal)));
  };
}

async function transfers(model: Model, node: string, signal: AbortSignal): Promise<void> {
  try {
    const found = await get<List<Transfer>>(`/api/v1/nodes/${encodeURIComponent(node)}/transfers`, signal);
    model.setTransfers(node, found.items, Date.now());
  } catch (error) {
    if (!(error instanceof Problem)) {
      throw error;
    }
    if (error.kind === "agent-unavailable") {
      model.setSilent(node, error.message);
    } else if (error.status !== 404 && error.status !== 403) {
      // It may be gone by now, or another's; anything else is of the server.
      throw error;
    }
  }
}

// How regions, and nodes, reach each other: what is drawn and tabulated, of the rows that agents tell.

import type { Model } from "./model";
import type { Level } from "./table";

export const LOSS_WARN = 0.001;
export const LOSS_BAD = 0.01;
/** Nodes that have a line of their own in the matrix; of more, their regions have. */
const NODES_MAX = 12;
export const NO_REGION = "no region";

export interface Cell {
  rttMs: number;
  lossRatio: number;
  jitterMs: number | null;
  /** Of how many paths between nodes. */
  paths: number;
}

export interface Matrix {
  of: "nodes" | "regions";
  names: string[];
  cell: (from: string, to: string) => Cell | undefined;
}

export function level(lossRatio: number): Level {
  return lossRatio >= LOSS_BAD ? "bad" : lossRatio >= LOSS_WARN ? "warn" : "good";
}

function regionOf(model: Model): (node: string) => string {
  const regions = new Map<string, string | null>(model.rows.map((row) => [row.from, row.region]));
  model.nodes.forEach((node) => regions.set(node.name, node.region));
  return (node) => regions.get(node) ?? NO_REGION;
}

/** The matrix of names that nodes are gathered by: of all paths between two, the median time and the largest loss. */
function gathered(model: Model, of: Matrix["of"], nameOf: (node: string) => string): Matrix {
  const found = new Map<string, Cell[]>();
  const names = new Set(model.nodes.map((node) => nameOf(node.name)));
  for (const row of model.rows) {
    names.add(nameOf(row.from));
    for (const path of row.paths) {
      const key = JSON.stringify([nameOf(row.from), nameOf(path.to)]);
      const cell = { rttMs: path.rtt_ms, lossRatio: path.loss_ratio, jitterMs: path.jitter_ms, paths: 1 };
      found.set(key, [...(found.get(key) ?? []), cell]);
    }
  }
  const cells = new Map([...found].map(([key, cells]) => [key, summary(cells)]));
  return { of, names: [...names].sort(), cell: (from, to) => cells.get(JSON.stringify([from, to])) };
}

function summary(cells: Cell[]): Cell {
  const middle = [...cells].sort((a, b) => a.rttMs - b.rttMs)[cells.length >> 1] as Cell;
  return { ...middle, lossRatio: Math.max(...cells.map((cell) => cell.lossRatio)), paths: cells.length };
}

export function byRegion(model: Model): Matrix {
  return gathered(model, "regions", regionOf(model));
}

/** The matrix that fits onto a page. */
export function matrix(model: Model): Matrix {
  const byNode = gathered(model, "nodes", (node) => node);
  return byNode.names.length <= NODES_MAX ? byNode : byRegion(model);
}

export function nodesOf(model: Model): Map<string, string[]> {
  const region = regionOf(model);
  const nodes = new Map<string, string[]>();
  for (const node of model.nodes) {
    nodes.set(region(node.name), [...(nodes.get(region(node.name)) ?? []), node.name]);
  }
  return nodes;
}

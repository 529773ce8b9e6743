// The section of regions: a ring, and the matrix of latency and loss behind it.

import { el, keyed, setAttribute, setText, svg } from "./dom";
import { milliseconds, percent, seconds } from "./format";
import type { Model } from "./model";
import { byRegion, level, matrix, nodesOf, type Cell, type Matrix } from "./paths";
import type { Region } from "./schema";
import { Section, type View } from "./section";
import { Table } from "./table";

const WIDTH = 640;
const HEIGHT = 360;
/** Regions between which times are written. */
const LABELLED_MAX = 8;

export class RegionsView implements View {
  private readonly lines = svg("g");
  private readonly places = svg("g");
  private readonly ring = svg("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, class: "ring", role: "img" }, this.lines, this.places);
  private readonly caption = el("caption");
  private readonly head = el("tr");
  private readonly body = el("tbody");
  private readonly note = el("p", { class: "note" });
  private readonly replication = new Table<Region>(
    "Replication with other regions",
    [
      { head: "Region", text: (region) => region.name },
      { head: "Connection", text: (region) => (region.replication?.connected ? "yes" : "no"), level: (region) => (region.replication?.connected ? "good" : "bad") },
      { head: "Lag", text: (region) => seconds((region.replication?.lag_ms ?? 0) / 1000), isNumber: true },
    ],
    (region) => region.name,
    "",
  );
  readonly section: Section;

  constructor() {
    const table = el("table", { class: "matrix" }, this.caption, el("thead", {}, this.head), this.body);
    const label = "Latency and loss";
    const scroll = el("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": label }, table);
    this.section = new Section("regions", "Regions", ["nodes", "paths", "regions"], el("div", { class: "split" }, el("figure", {}, this.ring), el("div", {}, scroll, this.note)), this.replication.element);
  }

  update(model: Model): void {
    this.drawRing(byRegion(model), nodesOf(model));
    this.writeMatrix(matrix(model));
    const others = model.regions.filter(({ replication }) => replication && !replication.removed && !replication.is_this_one);
    this.replication.update(others);
    this.replication.element.hidden = others.length === 0;
  }

  private drawRing(regions: Matrix, nodes: Map<string, string[]>): void {
    const places = new Map(regions.names.map((name, at) => [name, place(at, regions.names.length)]));
    const pairs = regions.names.flatMap((a, at) => regions.names.slice(at + 1).map((b) => [a, b] as const));
    const met = pairs.flatMap(([a, b]) => {
      const cell = worse(regions.cell(a, b), regions.cell(b, a));
      return cell ? [{ a, b, cell }] : [];
    });
    keyed(this.lines, met.map(({ a, b }) => JSON.stringify([a, b])), () => svg("g", {}, svg("line"), svg("text", { class: "on-line" }))).forEach((group, at) => {
      const { a, b, cell } = met[at] as (typeof met)[number];
      const [from, to] = [places.get(a) as Place, places.get(b) as Place];
      const [line, text] = [group.children[0] as Element, group.children[1] as Element];
      Object.entries({ x1: from.x, y1: from.y, x2: to.x, y2: to.y }).forEach(([name, value]) => setAttribute(line, name, value));
      setAttribute(group, "data-level", level(cell.lossRatio));
      // Of long lines that cross, the middles are one place; a third of the way is not.
      setAttribute(text, "x", from.x + (to.x - from.x) * 0.4);
      setAttribute(text, "y", from.y + (to.y - from.y) * 0.4 - 6);
      setText(text, regions.names.length <= LABELLED_MAX ? milliseconds(cell.rttMs) : "");
    });
    keyed(this.places, regions.names, () => svg("g", { class: "place" }, svg("circle", { r: 34 }), svg("text", { class: "name" }), svg("text", { class: "count" }))).forEach((group, at) => {
      const name = regions.names[at] ?? "";
      const { x, y } = places.get(name) as Place;
      const count = nodes.get(name)?.length ?? 0;
      setAttribute(group, "transform", `translate(${x} ${y})`);
      setText(group.children[1] as Element, name);
      setAttribute(group.children[1] as Element, "y", y > HEIGHT / 2 + 1 ? 52 : -42);
      setText(group.children[2] as Element, count === 1 ? "1 node" : `${count} nodes`);
    });
    const said = met.map(({ a, b, cell }) => `${a} to ${b} ${milliseconds(cell.rttMs)}, loss ${percent(cell.lossRatio)}`);
    setAttribute(this.ring, "aria-label", `${regions.names.length} regions. ${said.join(". ")}`);
  }

  private writeMatrix(found: Matrix): void {
    setText(this.caption, `Round-trip time and loss between ${found.of}, from each line to each column`);
    keyed(this.head, ["", ...found.names], (key) => (key ? el("th", { scope: "col" }) : el("td"))).forEach((cell, at) => {
      setText(cell, at === 0 ? "" : (found.names[at - 1] ?? ""));
    });
    keyed(this.body, found.names, () => el("tr")).forEach((row, at) => this.writeRow(row, found, found.names[at] ?? ""));
    setText(this.note, found.names.length ? "" : "No node has told of its paths.");
  }

  private writeRow(row: HTMLTableRowElement, found: Matrix, from: string): void {
    const cells = keyed(row, ["", ...found.names], (key): HTMLElement => (key ? el("td") : el("th", { scope: "row" })));
    cells.forEach((element, at) => {
      const to = found.names[at - 1];
      if (to === undefined) {
        setText(element, from);
        return;
      }
      const cell = found.cell(from, to);
      setText(element, cell ? `${milliseconds(cell.rttMs)}, ${percent(cell.lossRatio)}` : from === to ? "–" : "unknown");
      setAttribute(element, "data-level", cell ? level(cell.lossRatio) : "none");
    });
  }
}

interface Place {
  x: number;
  y: number;
}

function place(at: number, of: number): Place {
  if (of === 1) {
    return { x: WIDTH / 2, y: HEIGHT / 2 };
  }
  const turn = of === 2 ? Math.PI : -Math.PI / 2;
  const angle = turn + (2 * Math.PI * at) / of;
  return { x: Math.round(WIDTH / 2 + 215 * Math.cos(angle)), y: Math.round(HEIGHT / 2 + 125 * Math.sin(angle)) };
}

function worse(a: Cell | undefined, b: Cell | undefined): Cell | undefined {
  if (!a || !b) {
    return a ?? b;
  }
  return a.lossRatio >= b.lossRatio ? a : b;
}

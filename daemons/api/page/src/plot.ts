// A rate over time: a line, and behind it a table with the same numbers.

import { el, keyed, setAttribute, setText, svg } from "./dom";
import { rate, time } from "./format";
import { speeds, type Series, type Speed } from "./rates";

const WIDTH = 320;
const HEIGHT = 80;
/** Rows of the table, the newest. */
const ROWS_MAX = 30;

export class Plot {
  readonly element: HTMLElement;
  private readonly label = el("span", { class: "label" });
  private readonly now = el("span", { class: "now" });
  private readonly line = svg("polyline", { class: "line" });
  private readonly area = svg("polygon", { class: "area" });
  private readonly top = svg("text", { x: 4, y: 12 });
  private readonly image = svg("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", preserveAspectRatio: "none" });
  private readonly caption = el("caption");
  private readonly body = el("tbody");

  constructor() {
    this.image.append(this.area, this.line, this.top);
    const heads = el("tr", {}, el("th", { scope: "col" }, "Time"), el("th", { scope: "col", class: "number" }, "Rate"));
    const table = el("table", {}, this.caption, el("thead", {}, heads), this.body);
    const numbers = el("details", {}, el("summary", {}, "As a table"), table);
    this.element = el("figure", {}, el("figcaption", {}, this.label, this.now), this.image, numbers);
  }

  update(series: Series): void {
    const all = speeds(series);
    const last = all.at(-1)?.bytesPerSecond ?? 0;
    const most = Math.max(0, ...all.map((speed) => speed.bytesPerSecond));
    const average = all.length ? all.reduce((sum, speed) => sum + speed.bytesPerSecond, 0) / all.length : 0;
    setText(this.label, series.label);
    setText(this.now, series.isRunning ? rate(last) : `ended, ${rate(average)} on average`);
    setText(this.caption, `Rate: ${series.label}`);
    setText(this.top, rate(most));
    setAttribute(this.image, "aria-label", `Rate of the ${series.label}: ${rate(last)} now, ${rate(most)} at most`);
    this.draw(all, most);
    const rows = all.slice(-ROWS_MAX).reverse();
    keyed(this.body, rows.map((speed) => String(speed.atMs)), () => el("tr", {}, el("td"), el("td", { class: "number" }))).forEach(
      (row, at) => {
        const speed = rows[at] as Speed;
        setText(row.cells[0] as Element, time(speed.atMs));
        setText(row.cells[1] as Element, rate(speed.bytesPerSecond));
      },
    );
  }

  private draw(all: Speed[], most: number): void {
    const first = all[0]?.atMs ?? 0;
    const span = Math.max(1, (all.at(-1)?.atMs ?? 0) - first);
    const points = all.map((speed) => {
      const x = ((speed.atMs - first) / span) * WIDTH;
      const y = HEIGHT - 2 - (speed.bytesPerSecond / (most || 1)) * (HEIGHT - 22);
      return `${x.toFixed(1)},${y.toFixed(1)}`;
    });
    setAttribute(this.line, "points", points.join(" "));
    setAttribute(this.area, "points", points.length ? `0,${HEIGHT} ${points.join(" ")} ${WIDTH},${HEIGHT}` : "");
  }
}

// Tables whose rows stay the same elements while what they say changes, so that focus stays where it is.

import { el, keyed, setAttribute, setText } from "./dom";

/** Rows that are shown. */
const ROWS_MAX = 200;

export interface Column<T> {
  head: string;
  /** What the cell says; the first column is the row's header. */
  text?: (item: T) => string;
  /** Puts something else than text into the cell. */
  fill?: (cell: HTMLElement, item: T) => void;
  /** How good that is, for its colour. */
  level?: (item: T) => Level;
  isNumber?: boolean;
}

export type Level = "good" | "warn" | "bad" | "none";

export class Table<T> {
  readonly element: HTMLElement;
  private readonly body = el("tbody");
  private readonly note = el("p", { class: "note" });

  constructor(
    caption: string,
    private readonly columns: Column<T>[],
    private readonly key: (item: T) => string,
    private readonly empty: string,
  ) {
    const heads = columns.map((column) => el("th", { scope: "col", class: kindOf(column) }, column.head));
    const table = el("table", {}, el("caption", {}, caption), el("thead", {}, el("tr", {}, ...heads)), this.body);
    // Whoever has no mouse scrolls what has the focus.
    const scroll = el("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": caption }, table);
    this.element = el("div", {}, scroll, this.note);
  }

  update(items: T[]): void {
    const shown = items.slice(0, ROWS_MAX);
    const rows = keyed(this.body, shown.map(this.key), () => this.row());
    rows.forEach((row, at) => this.write(row, shown[at] as T));
    const more = items.length - shown.length;
    setText(this.note, items.length === 0 ? this.empty : more > 0 ? `and ${more} more` : "");
  }

  private row(): HTMLTableRowElement {
    const cells = this.columns.map((column, at) =>
      at === 0 ? el("th", { scope: "row" }) : el("td", { class: kindOf(column) }),
    );
    return el("tr", {}, ...cells);
  }

  private write(row: HTMLTableRowElement, item: T): void {
    this.columns.forEach((column, at) => {
      const cell = row.cells[at] as HTMLElement;
      column.fill?.(cell, item);
      if (column.text) {
        setText(cell, column.text(item));
      }
      if (column.level) {
        setAttribute(cell, "data-level", column.level(item));
      }
    });
  }
}

function kindOf<T>(column: Column<T>): string {
  return column.isNumber ? "number" : "";
}

// A part of the page: a heading, why what it shows is old, and what it shows.

import type { Model, Source } from "./model";
import { el, setText } from "./dom";

export class Section {
  readonly element: HTMLElement;
  private readonly problem = el("p", { class: "problem" });

  constructor(
    id: string,
    title: string,
    private readonly sources: Source[],
    ...body: HTMLElement[]
  ) {
    const heading = el("h2", { id: `${id}-heading` }, title);
    // A link to it gives it the focus.
    this.element = el("section", { id, tabindex: -1, "aria-labelledby": heading.id }, heading, this.problem, ...body);
  }

  showProblems(model: Model): void {
    const problems = this.sources.map((source) => model.problems.get(source)?.message).filter((why) => why !== undefined);
    setText(this.problem, [...new Set(problems)].join("; "));
  }
}

/** What a part of the page is to the rest of it. */
export interface View {
  section: Section;
  update(model: Model): void;
}

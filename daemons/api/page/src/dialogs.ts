// The two questions that the page asks: who is there, and whether that is meant.

import { el, setText } from "./dom";

export class Dialogs {
  private readonly login = new LoginDialog();

  constructor(parent: HTMLElement) {
    parent.append(this.login.element);
  }

  /** Asks for a token; calls back with it when there is one. */
  askToken(why: string, given: (token: string) => void): void {
    this.login.ask(why, given);
  }

  /** Whether that is meant. */
  confirm(title: string, text: string, yes: string, no: string): Promise<boolean> {
    const heading = el("h2", { id: "confirm-heading" }, title);
    const accept = el("button", { type: "button", class: "main" }, yes);
    const refuse = el("button", { type: "button" }, no);
    const buttons = el("div", { class: "buttons" }, refuse, accept);
    const dialog = el("dialog", { "aria-labelledby": heading.id }, heading, el("p", {}, text), buttons);
    document.body.append(dialog);
    return new Promise((resolve) => {
      accept.addEventListener("click", () => dialog.close("yes"));
      refuse.addEventListener("click", () => dialog.close("no"));
      // It is closed by Escape, too.
      dialog.addEventListener("close", () => {
        dialog.remove();
        resolve(dialog.returnValue === "yes");
      });
      dialog.showModal();
    });
  }
}

class LoginDialog {
  private readonly input = el("input", { id: "token", type: "password", autocomplete: "off", spellcheck: "false", required: true });
  private readonly why = el("p", { id: "login-why" });
  private readonly form = el(
    "form",
    {},
    el("label", { for: "token" }, "API token, or a token of your provider"),
    this.input,
    el("div", { class: "buttons" }, el("button", { type: "submit", class: "main" }, "Log in")),
  );
  readonly element = el(
    "dialog",
    { "aria-labelledby": "login-heading", "aria-describedby": "login-why" },
    el("h2", { id: "login-heading" }, "Log in"),
    this.why,
    this.form,
    el("p", { class: "note" }, "It is kept in this tab until you log out or close it."),
  );
  private given: (token: string) => void = () => {};

  constructor() {
    this.form.addEventListener("submit", (event) => {
      event.preventDefault();
      const token = this.input.value.trim();
      this.input.value = "";
      this.element.close();
      this.given(token);
    });
  }

  ask(why: string, given: (token: string) => void): void {
    this.given = given;
    setText(this.why, why);
    if (!this.element.open) {
      this.element.showModal();
    }
  }
}

// The page: who is logged in, what is asked, and where it is shown.

import { alarms, AlarmsView } from "./alarms";
import { Announcer } from "./announce";
import { onLoginNeeded, setToken, token } from "./api";
import { Dialogs } from "./dialogs";
import { byId, setAttribute, setText } from "./dom";
import { time } from "./format";
import { JobsView, VmsView } from "./inventory";
import { look } from "./looks";
import { MembersView } from "./members";
import { MigrationsView } from "./migrations";
import { Model } from "./model";
import { NodesView } from "./nodes";
import { pause, resume } from "./poll";
import { RegionsView } from "./regions";
import type { Job } from "./schema";
import type { View } from "./section";
import { chooseTheme } from "./theme";
import { TransfersView } from "./transfers";
import { Watcher } from "./watch";

class Page {
  private readonly model = new Model();
  private readonly announcer = new Announcer();
  private readonly dialogs = new Dialogs(document.body);
  private readonly watcher = new Watcher((job) => this.tell(job));
  private readonly state = byId("state", HTMLElement);
  private readonly loginButton = byId("login-button", HTMLButtonElement);
  private readonly views: View[] = [
    new AlarmsView(),
    new RegionsView(),
    new MigrationsView(this.dialogs, (job) => this.tell(job)),
    new TransfersView(),
    new MembersView(),
    new NodesView(),
    new VmsView(),
    new JobsView(),
  ];
  private lookNow: () => void = () => {};
  private isLoginNeeded = false;
  private isDrawn = false;

  begin(): void {
    chooseTheme();
    byId("main", HTMLElement).replaceChildren(...this.views.map((view) => view.section.element));
    onLoginNeeded(() => this.askLogin());
    this.loginButton.addEventListener("click", () => (this.isLoginNeeded ? this.showLogin("") : this.logOut()));
    this.lookNow = look(this.model, () => this.draw());
    this.draw();
  }

  private tell(job: Job): void {
    this.model.setJob(job, Date.now());
    this.draw();
  }

  /** Draws once for all that comes until the next frame. */
  private draw(): void {
    if (this.isDrawn) {
      return;
    }
    this.isDrawn = true;
    setTimeout(() => {
      this.isDrawn = false;
      this.drawNow();
    }, 50);
  }

  private drawNow(): void {
    for (const view of this.views) {
      view.section.showProblems(this.model);
      view.update(this.model);
    }
    this.watcher.update(this.isLoginNeeded ? [] : this.model.migrations);
    this.announcer.alarmsAre(alarms(this.model, Date.now()));
    this.announcer.migrations(this.model.migrations);
    this.drawState();
  }

  private drawState(): void {
    const { health, problems, answeredMs } = this.model;
    const as = answeredMs ? ` at ${time(answeredMs)}` : "";
    const away = problems.get("health");
    const state = this.isLoginNeeded
      ? "Not logged in"
      : away
        ? `No answer; the last one was${as || " never"}`
        : health
          ? `Live${as}, replica ${health.replica}, version ${health.version}`
          : "Asking";
    setText(this.state, state);
    setAttribute(this.state, "data-level", this.isLoginNeeded || away ? "bad" : "good");
    setText(this.loginButton, this.isLoginNeeded ? "Log in" : "Log out");
    // Without a token there is nothing to log out of.
    this.loginButton.hidden = !this.isLoginNeeded && !token();
  }

  private askLogin(): void {
    if (this.isLoginNeeded) {
      return;
    }
    const why = token() ? "The server does not take this token, or does not take it any more." : "This server asks who you are.";
    this.isLoginNeeded = true;
    pause();
    this.watcher.stop();
    setToken("");
    this.showLogin(why);
    this.draw();
  }

  private showLogin(why: string): void {
    this.dialogs.askToken(why, (given) => {
      setToken(given);
      this.isLoginNeeded = false;
      resume();
      this.lookNow();
      this.draw();
    });
  }

  private logOut(): void {
    setToken("");
    // What is on the page is not for whoever comes next.
    location.reload();
  }
}

new Page().begin();

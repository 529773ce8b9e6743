// What screen readers say by themselves: few and short sentences.

import { byId, setText } from "./dom";
import type { Alarm } from "./alarms";
import { hasEnded, type Migration } from "./schema";

/** A migration's progress is told each so many percent. */
const STEP_PERCENT = 25;

export class Announcer {
  private readonly steps = new Map<string, number>();
  private alarms = new Set<string>();
  private readonly element = byId("announcements", HTMLElement);

  say(text: string): void {
    setText(this.element, text);
  }

  migrations(all: Migration[]): void {
    for (const job of all) {
      const before = this.steps.get(job.id);
      const percent = job.progress.total ? (100 * job.progress.done) / job.progress.total : 0;
      const step = hasEnded(job) ? 100 : Math.floor(percent / STEP_PERCENT);
      this.steps.set(job.id, step);
      // What had ended when the page began is no news.
      if (before === undefined ? hasEnded(job) : before === step) {
        continue;
      }
      const state = hasEnded(job) ? job.state : `${step * STEP_PERCENT} %`;
      this.say(`Migration of ${job.work.vm} to ${job.work.to}: ${state}`);
    }
  }

  alarmsAre(alarms: Alarm[]): void {
    const added = alarms.filter((alarm) => !this.alarms.has(alarm.key));
    this.alarms = new Set(alarms.map((alarm) => alarm.key));
    if (added.length) {
      this.say(`Alarm: ${added.map((alarm) => alarm.text).join("; ")}`);
    }
  }
}

// The section of the store's members.

import { bytes } from "./format";
import type { Model } from "./model";
import type { Member } from "./schema";
import { Section, type View } from "./section";
import { Table } from "./table";

export class MembersView implements View {
  private leaderIndex = 0;
  private readonly table = new Table<Member>(
    "Raft members of the store",
    [
      { head: "Member", text: (member) => member.name || member.id },
      { head: "Role", text: role, level: (member) => (member.status ? (member.status.is_leader ? "good" : "none") : "bad") },
      { head: "Term", text: (member) => number(member.status?.term), isNumber: true },
      { head: "Committed", text: (member) => number(member.status?.index), isNumber: true },
      { head: "Applied", text: (member) => number(member.status?.applied_index), isNumber: true },
      { head: "Lag in entries", text: (member) => this.lag(member), isNumber: true },
      { head: "Data", text: (member) => (member.status ? bytes(member.status.data_bytes) : ""), isNumber: true },
      { head: "For clients", text: (member) => member.client_urls.join(", ") },
      { head: "Errors", text: (member) => member.status?.errors.join("; ") ?? "it does not answer" },
    ],
    (member) => member.id,
    "",
  );
  readonly section = new Section("members", "Raft members", ["members"], this.table.element);

  update(model: Model): void {
    this.leaderIndex = model.members.find((member) => member.status?.is_leader)?.status?.index ?? 0;
    this.table.update(model.members);
  }

  /** Members are asked one after the other: a follower that was asked later may be ahead. */
  private lag(member: Member): string {
    return member.status && this.leaderIndex ? number(Math.max(0, this.leaderIndex - member.status.applied_index)) : "";
  }
}

function role(member: Member): string {
  if (!member.status) {
    return "unknown";
  }
  return member.status.is_leader ? "leader" : member.is_learner ? "learner" : "follower";
}

function number(value: number | undefined): string {
  return value === undefined ? "" : String(value);
}

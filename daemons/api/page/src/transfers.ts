// The section of transfers, as agents tell of them.

import { bytes, rate, seconds } from "./format";
import { fillProgress, levelOf } from "./migrations";
import type { Model, Told } from "./model";
import { Section, type View } from "./section";
import { Table } from "./table";

export class TransfersView implements View {
  private readonly table = new Table<Told>(
    "Transfers that agents tell of",
    [
      { head: "What", text: (transfer) => transfer.from ?? transfer.to ?? `number ${transfer.id}` },
      { head: "Node", text: (transfer) => transfer.node },
      { head: "Direction", text: (transfer) => `${transfer.direction === "send" ? "to" : "from"} ${transfer.peer}` },
      { head: "State", text: (transfer) => transfer.state, level: (transfer) => levelOf(transfer.state) },
      { head: "Progress", fill: (cell, told) => fillProgress(cell, `Transfer ${told.id} of ${told.node}`, told.bytes_done, told.bytes_total) },
      { head: "Sent", text: (transfer) => bytes(transfer.bytes_moved), isNumber: true },
      { head: "Rate", text: (transfer) => (transfer.seconds > 0 ? rate(transfer.bytes_moved / transfer.seconds) : ""), isNumber: true },
      { head: "Time", text: (transfer) => seconds(transfer.seconds), isNumber: true },
      { head: "Error", text: (transfer) => transfer.error ?? "" },
    ],
    (transfer) => `${transfer.node}/${transfer.id}/${transfer.direction}`,
    "No transfers.",
  );
  readonly section = new Section("transfers", "Transfers", ["transfers"], this.table.element);

  update(model: Model): void {
    this.table.update(model.transfers);
  }
}

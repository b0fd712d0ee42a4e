#!/usr/bin/env node
// Written so that an old Node can read it: it must be able to say what is missing.
var major = Number(process.versions.node.split('.')[0]);
if (major < 24) {
  console.error(
    'error: countersign needs Node.js 24 or newer, and this is ' +
      process.version +
      ' (fix: install it from https://nodejs.org)',
  );
  process.exit(2);
}
import('node:fs').then(function (fs) {
  var built = new URL('../dist/main.js', import.meta.url);
  return import(fs.existsSync(built) ? built.href : new URL('../src/main.ts', import.meta.url).href);
});

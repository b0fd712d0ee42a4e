import assert from 'node:assert/strict';
import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { tool } from '../../scripts/tools.ts';
import { findOnPath } from '../../src/tools/index.ts';
import { type Case, judgeCase } from '../kit/conformance.ts';
import { inQuickRun, without } from '../kit/machine.ts';

const ROOT = fileURLToPath(new URL('../..', import.meta.url));
const MODULE = join(ROOT, 'tools/opa');
const go = findOnPath('go', process.env['PATH'] ?? '') ?? '';

// OPA's own cases lie in its Go module; each is compiled to Wasm by OPA and run in our host.
test('every conformance case of OPA whose builtins are served passes', {
  skip: inQuickRun() || without('Go'),
}, async () => {
  const compiler = await tool('opa-conformance', { pinned: true });
  const directory = execFileSync(go, ['list', '-m', '-f', '{{.Dir}}', 'github.com/open-policy-agent/opa'], {
    cwd: MODULE,
    encoding: 'utf8',
  }).trim();
  const cases = join(directory, 'v1/test/cases/testdata');
  assert.ok(existsSync(cases), `${cases} is not there`);
  const child: ChildProcess = spawn(compiler, [cases], { stdio: ['ignore', 'pipe', 'inherit'] });
  const counts = { passed: 0, failed: 0, skipped: 0 };
  const failures: string[] = [];
  const reasons = new Map<string, number>();
  for await (const line of createInterface({ input: child.stdout as NodeJS.ReadableStream })) {
    const one = JSON.parse(line) as Case;
    const outcome = await judgeCase(one);
    counts[outcome.kind]++;
    if (outcome.kind === 'failed') failures.push(`${one.version} ${one.note}: ${outcome.why}`);
    if (outcome.kind === 'skipped')
      reasons.set(outcome.why.slice(0, 60), (reasons.get(outcome.why.slice(0, 60)) ?? 0) + 1);
  }
  assert.deepEqual(failures, []);
  assert.ok(counts.passed >= 4380, JSON.stringify(counts));
  // The table in docs/policy.md is of these numbers.
  assert.match(
    readFileSync(join(ROOT, 'docs/policy.md'), 'utf8'),
    new RegExp(`${counts.passed.toLocaleString('en')} of ${(counts.passed + counts.skipped).toLocaleString('en')}`),
  );
});

import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
import { dirname, join, normalize } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';

// The room table of docs/architecture.md: room → rooms it may import, and packages only it may import. Change it there
// first.
const ROOMS: Record<string, { rooms: string[]; packages: string[] }> = {
  model: { rooms: [], packages: ['zod', 'canonicalize', 'croner'] },
  yaml: { rooms: ['model'], packages: ['js-yaml'] },
  config: { rooms: ['model', 'yaml'], packages: ['zod'] },
  git: { rooms: ['model', 'outgoing'], packages: ['isomorphic-git'] },
  trust: {
    rooms: ['model'],
    packages: [
      'openpgp',
      'zod',
      '@peculiar/asn1-cms',
      '@peculiar/asn1-schema',
      '@sigstore/bundle',
      '@sigstore/protobuf-specs',
      '@sigstore/verify',
    ],
  },
  render: { rooms: ['model', 'yaml'], packages: [] },
  sops: { rooms: ['model'], packages: ['age-encryption', 'openpgp'] },
  rego: {
    rooms: ['model', 'yaml'],
    packages: [
      're2js',
      'semver/functions/compare.js',
      'ajv',
      'graphql',
      'js-yaml',
      '@peculiar/x509',
      'reflect-metadata',
    ],
  },
  outgoing: { rooms: ['model'], packages: [] },
  registry: { rooms: ['model', 'outgoing'], packages: [] },
  bundle: { rooms: ['model', 'yaml', 'rego', 'registry'], packages: ['nanotar', 'ajv'] },
  policy: { rooms: ['model', 'rego', 'bundle'], packages: [] },
  ledger: { rooms: ['model', 'outgoing'], packages: ['pg', 'pg-copy-streams', '@sigstore/core'] },
  cluster: { rooms: ['model', 'yaml'], packages: ['@kubernetes/client-node', '@marcbachmann/cel-js'] },
  report: { rooms: ['model'], packages: ['d3-scale', 'fflate', 'pdfkit'] },
  forge: { rooms: ['model', 'outgoing'], packages: ['zod'] },
  tools: { rooms: ['model'], packages: ['nanotar'] },
  machinery: { rooms: ['model'], packages: [] },
  gate: { rooms: ['model', 'trust', 'render', 'policy', 'machinery'], packages: [] },
  reconcile: { rooms: ['model', 'gate'], packages: [] },
  webhook: { rooms: ['model', 'gate'], packages: ['express', '@peculiar/x509', 'reflect-metadata'] },
  notify: { rooms: ['model', 'outgoing'], packages: ['nodemailer'] },
  schedule: { rooms: ['model', 'notify', 'outgoing'], packages: ['aws4fetch'] },
  fence: { rooms: ['model', 'yaml', 'render'], packages: ['nanotar'] },
  terminal: { rooms: ['model'], packages: [] },
  findings: { rooms: ['model', 'bundle', 'config', 'terminal'], packages: [] },
  http: {
    rooms: ['model', 'reconcile'],
    packages: [
      'escape-html',
      'express',
      'prom-client',
      '@opentelemetry/api',
      '@opentelemetry/context-async-hooks',
      '@opentelemetry/exporter-trace-otlp-http',
      '@opentelemetry/resources',
      '@opentelemetry/sdk-trace',
    ],
  },
  open: {
    rooms: [
      'model',
      'config',
      'git',
      'trust',
      'sops',
      'registry',
      'bundle',
      'policy',
      'ledger',
      'forge',
      'tools',
      'gate',
      'reconcile',
      'fence',
      'http',
    ],
    packages: [],
  },
  publish: { rooms: ['model', 'git', 'trust', 'ledger', 'report', 'gate', 'schedule', 'open'], packages: [] },
  serve: {
    rooms: [
      'model',
      'config',
      'git',
      'trust',
      'bundle',
      'policy',
      'ledger',
      'cluster',
      'report',
      'machinery',
      'gate',
      'reconcile',
      'webhook',
      'notify',
      'schedule',
      'http',
      'terminal',
      'open',
      'publish',
    ],
    packages: ['pino', 'birpc'],
  },
  cli: {
    rooms: [
      'model',
      'yaml',
      'config',
      'git',
      'trust',
      'bundle',
      'policy',
      'ledger',
      'cluster',
      'report',
      'machinery',
      'forge',
      'tools',
      'gate',
      'reconcile',
      'schedule',
      'http',
      'terminal',
      'findings',
      'open',
      'publish',
      'serve',
    ],
    packages: ['commander', '@commander-js/extra-typings', 'pino', 'diff'],
  },
};
const SRC = fileURLToPath(new URL('../src', import.meta.url));

type Import = { file: string; room: string; target: string };

function imports(): Import[] {
  return Object.keys(ROOMS).flatMap((room) =>
    readdirSync(join(SRC, room)).flatMap((name) => {
      const text = readFileSync(join(SRC, room, name), 'utf8');
      return [
        ...text.matchAll(/^(?:import|export)\b[^;]*?\bfrom '([^']+)'|^import '([^']+)'|\bimport\('([^']+)'\)/gm),
      ].map((m) => ({
        file: `src/${room}/${name}`,
        room,
        target: m[1] ?? m[2] ?? m[3] ?? '',
      }));
    }),
  );
}

test('every folder of src is a room of the table, flat inside', () => {
  const folders = readdirSync(SRC, { withFileTypes: true });
  assert.deepEqual(
    folders
      .filter((f) => f.isDirectory())
      .map((f) => f.name)
      .sort(),
    Object.keys(ROOMS).sort(),
  );
  assert.deepEqual(
    folders.filter((f) => f.isFile()).map((f) => f.name),
    ['main.ts'],
  );
  for (const room of Object.keys(ROOMS)) {
    assert.deepEqual(
      readdirSync(join(SRC, room), { withFileTypes: true }).filter((f) => f.isDirectory()),
      [],
      `${room} has folders inside; a second room may be hiding there`,
    );
  }
});

test('a room imports only the rooms the table allows, and only their faces', () => {
  for (const { file, room, target } of imports().filter((i) => i.target.startsWith('.'))) {
    const path = normalize(join(dirname(file), target)).split('/');
    const other = path[1] ?? '';
    if (other === room) continue;
    assert.ok(
      ROOMS[room]?.rooms.includes(other),
      `${file} imports ${other}, but ${room} may import only ${ROOMS[room]?.rooms.join(', ') || 'nothing'}: what touches the world is handed in`,
    );
    assert.equal(path[2], 'index.ts', `${file} reaches into ${other}; import its face, index.ts`);
  }
});

test('a package is imported only by the room it belongs to', () => {
  for (const { file, room, target } of imports().filter(
    (i) => !i.target.startsWith('.') && !i.target.startsWith('node:'),
  )) {
    assert.ok(ROOMS[room]?.packages.includes(target), `${file} imports ${target}, which is not ${room}'s package`);
  }
});

test('each face says first what the room takes, gives and refuses', () => {
  for (const room of Object.keys(ROOMS)) {
    const face = readFileSync(join(SRC, room, 'index.ts'), 'utf8');
    assert.match(face, /^\/\*\*\n( \* .+\n){2,6} \*\//, `src/${room}/index.ts does not open with its few lines`);
  }
});

test('only config reads the process environment', () => {
  for (const room of Object.keys(ROOMS).filter((r) => r !== 'config')) {
    for (const name of readdirSync(join(SRC, room)))
      assert.doesNotMatch(readFileSync(join(SRC, room, name), 'utf8'), /process\.env/, `src/${room}/${name}`);
  }
});

test('the gate, the trust and the rules do no input or output', () => {
  for (const room of ['model', 'yaml', 'trust', 'render', 'gate', 'reconcile']) {
    for (const name of readdirSync(join(SRC, room))) {
      assert.doesNotMatch(
        readFileSync(join(SRC, room, name), 'utf8'),
        /from 'node:(fs|net|http|https|child_process|sqlite)/,
        `src/${room}/${name}`,
      );
    }
  }
});

test('the table in docs/architecture.md is this one', () => {
  const text = readFileSync(fileURLToPath(new URL('../docs/architecture.md', import.meta.url)), 'utf8');
  for (const [room, { rooms }] of Object.entries(ROOMS)) {
    const row = new RegExp(`^\\| \`${room}/\`\\s*\\|[^|]+\\|([^|]+)\\|`, 'm').exec(text);
    assert.ok(row, `docs/architecture.md has no row for ${room}`);
    assert.deepEqual(
      (row[1] ?? '')
        .split(',')
        .map((r) => r.trim())
        .filter((r) => r !== '—')
        .sort(),
      [...rooms].sort(),
      `the row of ${room}`,
    );
  }
});

test('no line of the source is over 120 columns, but for a grammar or a name that cannot be split', () => {
  for (const room of Object.keys(ROOMS)) {
    for (const name of readdirSync(join(SRC, room))) {
      for (const [i, line] of readFileSync(join(SRC, room, name), 'utf8')
        .split('\n')
        .entries()) {
        const isWhole = /^\s*\/[^/*].*\/[a-z]*[;,]?(\.exec\()?$/.test(line) || /xmlns:|ContentType=/.test(line);
        assert.ok([...line].length <= 120 || isWhole, `src/${room}/${name}:${i + 1}`);
      }
    }
  }
});

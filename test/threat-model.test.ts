import assert from 'node:assert/strict';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';

// The table "Where text from outside is interpreted" of docs/threat-model.md, compared with the code.
const SRC = fileURLToPath(new URL('../src', import.meta.url));
const PAGE = readFileSync(fileURLToPath(new URL('../docs/threat-model.md', import.meta.url)), 'utf8');
const OWNERS = ['tenant', 'pusher', 'server', 'caller', 'operator', 'person'];

// What interprets text: modules that reach a file, a program or the network, libraries that parse, and calls of the
// language itself.
const MODULES =
  /^(node:(fs|fs\/promises|net|http|https|http2|tls|dgram|dns|child_process|sqlite|vm)|openpgp|age-encryption|js-yaml|isomorphic-git(\/.*)?|@kubernetes\/client-node|@marcbachmann\/cel-js|nodemailer|aws4fetch|pg|pg-copy-streams|nanotar|re2js|ajv|graphql|croner|semver|express|commander|@peculiar\/.*|@sigstore\/.*|@opentelemetry\/exporter.*)$/;
const CALLS: Readonly<Record<string, RegExp>> = {
  fetch: /(?<![\w.#`])fetch\(/,
  askServer: /(?<!function )\baskServer\(/,
  RegExp: /\bnew RegExp\(/,
  URL: /\bnew URL\((?!['`]\.{1,2}\/)|\bURL\.(parse|canParse)\(/,
  import: /\bimport\((?!')/,
  Worker: /\bnew Worker\((?!new URL\(`\.\/)/,
  'WebAssembly.Module': /\bnew WebAssembly\.Module\(/,
};

// Files that use one of them, where no text from outside gets there.
const NOTHING_FROM_OUTSIDE: Readonly<Record<string, string>> = {
  'open/control-socket.ts': 'reads a path that the service itself wrote into its data directory',
  'cli/help.ts': 'prints pages of our own package, by names of a list',
  'open/in-thread.ts': 'starts modules that our own code names',
  'publish/make-report.ts': 'asks for the size of files in the data directory',
  'publish/report-files.ts': 'names come from report/write-report.ts, which has them as constants',
  'serve/probe-server.ts': 'serves an application of service/, which has rows of its own',
  'serve/documents.ts': 'names of ours in the data directory',
  'serve/ledger.ts': 'names of ours in the data directory',
  'serve/open-serving.ts': 'makes the data directory that the operator named',
  'serve/signing-lease.ts': 'asks where the data directory lies',
  'cluster/credentials.ts': 'asks for the state of files that load-kubeconfig.ts, which has a row, has found',
  'config/version.ts': 'reads our own package.json',
  'fence/memory.ts': 'reads what the kernel says of processes that we started',
  'ledger/archive-ledger.ts': 'the store in the data directory, and an archive that archive-file.ts has written',
  'ledger/open-sequencer.ts': 'names of ours in the data directory',
  'ledger/program-source.ts': 'reads our own checker',
  'ledger/data-access.ts': 'owners and modes of files of ours in the data directory',
  'ledger/replace-store.ts': 'names of ours in the data directory; what was made is checked before, by its roots',
  'ledger/take-lock.ts': 'the lock file, whose content does not matter',
  'ledger/turn-keys.ts': 'keys of ours in the data directory',
  'ledger/renew-ledger.ts': 'names of ours in the data directory',
  'ledger/replace-file.ts': 'writes a file that its caller names',
  'ledger/store-trouble.ts': 'asks SQLite about the store, and removes files of ours beside it',
  'ledger/replica-key.ts': 'a key of ours in the data directory',
  'ledger/sequencer.ts': 'names of ours in the data directory',
  'ledger/shared-sequencer.ts': 'names of ours in the data directory',
  'ledger/disk-reserve.ts': 'a file of ours beside the write-ahead file, with a note that we wrote',
  'ledger/write-ahead.ts': 'a file of ours in the data directory, with lines that we wrote',
  'model/address.ts':
    'these are the parsers; the URL is made to compare what was parsed, and the pattern is a constant',
  'rego/go-time.ts': 'patterns are made of numbers of digits',
  'report/page.ts': 'reads our own fonts',
  'report/shelf.ts': 'a file that the caller has just made',
  'trust/signature-threads.ts': 'starts our own module',
  'main.ts': 'the name of one function of V8, which is written there',
};

type Row = {
  readonly file: string;
  readonly names: readonly string[];
  readonly owners: readonly string[];
  readonly shape: string;
};

function rows(): Row[] {
  const begin = PAGE.indexOf('## Where text from outside is interpreted');
  const section = PAGE.slice(begin, PAGE.indexOf('\n## ', begin + 1));
  return [...section.matchAll(/^\| `([^`:]+\.ts): ([^`]+)` \|([^|]+)\|([^|]+)\|([^|]+)\|$/gm)].map(
    ([, file = '', names = '', , owners = '', shape = '']) => ({
      file,
      names: names.split(', '),
      owners: owners.trim().split(', '),
      shape,
    }),
  );
}

const code = (text: string) =>
  text
    .split('\n')
    .filter((line) => !/^\s*(\/\/|\/?\*)/.test(line))
    .join('\n');
const isDeclared = (name: string, text: string) =>
  new RegExp(`\\b(?:function\\*?|const|class) ${name}\\b|^ {2}(?:async |static |readonly )*\\*?#?${name}\\(`, 'm').test(
    text,
  );
const sources = () =>
  new Map(
    readdirSync(SRC, { recursive: true, encoding: 'utf8' })
      .filter((file) => file.endsWith('.ts'))
      .map((file) => [file, code(readFileSync(join(SRC, file), 'utf8'))]),
  );

function interpretersIn(text: string): string[] {
  const imported = [
    ...text.matchAll(/^import (?!type\b)[^;]*? from '([^']+)'|^import '([^']+)'|\bimport\('([^']+)'\)/gm),
  ]
    .map((m) => m[1] ?? m[2] ?? m[3] ?? '')
    .filter((module) => MODULES.test(module));
  const called = Object.entries(CALLS).filter(([, call]) => call.test(text));
  return [...imported, ...called.map(([name]) => name)];
}

test('each row names a file and a function that are there, and whose text it is', () => {
  const all = rows();
  const lines = PAGE.match(/^\| `[a-z-]+\/[a-z0-9-]+\.ts: /gm) ?? [];
  assert.equal(all.length, lines.length, 'a row that this test cannot read');
  assert.ok(all.length > 100);
  for (const { file, names, owners } of all) {
    assert.ok(existsSync(join(SRC, file)), `there is no src/${file}: correct its row in docs/threat-model.md`);
    const text = readFileSync(join(SRC, file), 'utf8');
    for (const name of names)
      assert.ok(isDeclared(name, text), `src/${file} has no \`${name}\`: correct its row in docs/threat-model.md`);
    for (const owner of owners)
      assert.ok(OWNERS.includes(owner), `src/${file}: whose is the text, if not one of ${OWNERS.join(', ')}?`);
  }
});

test('every parser that a row names is there', () => {
  const whole = [...sources().values()].join('\n');
  for (const { file, names, shape } of rows())
    for (const [, parser = ''] of shape.matchAll(/`(\w+)\(\)`/g))
      assert.ok(
        isDeclared(parser, whole),
        `the row of src/${file}: ${names} names \`${parser}()\`, which is not in src`,
      );
});

test('every row about text of a tenant, pusher, server or caller says what it is parsed into', () => {
  for (const { file, shape } of rows())
    assert.doesNotMatch(shape, /not parsed|^\s*$/i, `src/${file}: parse it, or say why nothing interprets it`);
});

test('every file that interprets text has a row, or a reason why none of it comes from outside', () => {
  const described = new Set(rows().map((row) => row.file));
  for (const [file, text] of sources()) {
    const interpreters = interpretersIn(text);
    if (interpreters.length === 0 || described.has(file)) continue;
    assert.ok(
      file in NOTHING_FROM_OUTSIDE,
      `src/${file} uses ${interpreters.join(', ')}. Parse what comes from outside into a closed shape (src/model/address.ts), and add a row to ` +
        '"Where text from outside is interpreted" in docs/threat-model.md; or, if nothing comes from outside, add the reason to this test',
    );
  }
});

test('every reason is still needed', () => {
  const described = new Set(rows().map((row) => row.file));
  const all = sources();
  for (const file of Object.keys(NOTHING_FROM_OUTSIDE)) {
    assert.ok(
      interpretersIn(all.get(file) ?? '').length > 0,
      `src/${file} interprets nothing any more: remove its reason from this test`,
    );
    assert.ok(!described.has(file), `src/${file} has a row: remove its reason from this test`);
  }
});

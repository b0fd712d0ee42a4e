import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { RE2JS } from 're2js';
import { z } from 'zod';
import { customResourceDefinitions } from '../../src/config/index.ts';
import {
  environmentSchema,
  environmentSetSchema,
  interpreted,
  type Mark,
  notifierSchema,
  reportScheduleSchema,
  trustPolicySchema,
  waiverSchema,
} from '../../src/model/index.ts';

type Field = {
  readonly path: string;
  readonly schema: z.core.$ZodType;
  readonly mark: Mark | undefined;
};

const KINDS = {
  Environment: environmentSchema,
  EnvironmentSet: environmentSetSchema,
  TrustPolicy: trustPolicySchema,
  Notifier: notifierSchema,
  ReportSchedule: reportScheduleSchema,
  Waiver: waiverSchema,
};

// Texts that are shown, compared as whole values, or parsed by us from end to end: no library, program, file or network
// reads them.
const PLAIN = new Set([
  'Environment.metadata.labels.KEY',
  'Environment.metadata.labels.*',
  // Templates and their texts: what becomes of them is checked as the fields of an Environment.
  'EnvironmentSet.spec.list.elements[].KEY',
  'EnvironmentSet.spec.list.elements[].*',
  'EnvironmentSet.spec.template.metadata.name',
  'EnvironmentSet.spec.template.metadata.labels.KEY',
  'EnvironmentSet.spec.template.metadata.labels.*',
  'EnvironmentSet.spec.template.spec.KEY',
  'Environment.spec.render.substitute.KEY',
  'Environment.spec.render.substitute.*',
  'Environment.spec.admission.breakGlass.debugImages[]',
  'Environment.spec.target.clusterScoped[]',
  'Environment.spec.target.clusterScoped[].kind',
  'Environment.spec.target.clusterScoped[].group',
  'Environment.spec.target.clusterScoped[].names[]',
  'Environment.spec.health.expressions[].apiVersion',
  'Environment.spec.health.expressions[].kind',
  'Environment.spec.health.expressions[].current', // CEL: a language without input and output, bounded
  'Environment.spec.health.expressions[].failed',
  'Environment.spec.drift.ignore[].kind',
  'Environment.spec.drift.ignore[].name',
  'Environment.spec.drift.ignore[].fields[]',
  'Environment.spec.policies.parameters.KEY',
  'Environment.spec.admission.controllers[]',
  'Environment.spec.admission.operators[]',
  'Environment.spec.admission.operators[].identity',
  'Environment.spec.admission.operators[].makes.kinds[]',
  'Environment.spec.admission.operators[].makes.images[]',
  ...[
    'name',
    'labels[]',
    'annotations[]',
    'containers[].name',
    'containers[].image',
    'containers[].capabilities[]',
    'containers[].sample',
    'containers[].varies[]',
    'volumes[].name',
    'volumes[].configMap',
    'volumes[].secret',
    'volumes[].tokenFor',
    'rewrites.mounts[].volume',
    'rewrites.mounts[].mountPath',
    'rewrites.env[]',
  ].map((of) => `Environment.spec.admission.injected[].${of}`), // compared with the text of a pod
  'Environment.spec.admission.policy.namespaces[]',
  'Environment.spec.admission.breakGlass.groups[]',
  'Environment.spec.policies.bundles[].sha256',
  'TrustPolicy.spec.principals[].emails[]',
  'TrustPolicy.spec.principals[].forgeAccounts[].id',
  'TrustPolicy.spec.principals[].forgeAccounts[].login',
  'TrustPolicy.spec.principals[].identities[].issuer',
  'TrustPolicy.spec.principals[].identities[].subject',
  'TrustPolicy.spec.principals[].keys[].ssh',
  'TrustPolicy.spec.principals[].keys[].openpgp',
  'TrustPolicy.spec.rules[].environments[]',
  'TrustPolicy.spec.rules[].refs[]',
  'TrustPolicy.spec.rules[].paths[]',
  'TrustPolicy.spec.certificateAuthorities[].ssh',
  'TrustPolicy.spec.certificateAuthorities[].principals',
  'TrustPolicy.spec.allowedSigners',
  'TrustPolicy.spec.sigstore.trustedRoot',
  'TrustPolicy.spec.sshRevocations',
  'TrustPolicy.spec.images.signers[].identity.issuer',
  'TrustPolicy.spec.images.signers[].identity.subject',
  'TrustPolicy.spec.images.signers[].key',
  'TrustPolicy.spec.blocked[].payload',
  'TrustPolicy.spec.blocked[].reason',
  'Notifier.spec.environments[]',
  'Notifier.spec.template',
  'ReportSchedule.spec.entity',
  'ReportSchedule.spec.classification',
  'Waiver.spec.rule',
  'Waiver.spec.environments[]',
  'Waiver.spec.subjects[].kind',
  'Waiver.spec.subjects[].namespace',
  'Waiver.spec.subjects[].name',
  'Waiver.spec.subjects[].file',
  'Waiver.spec.reason',
  'Waiver.spec.ticket',
  'Waiver.signature',
]);

test('every text of a document is plain, or says what it becomes and how it is parsed', () => {
  const fields = Object.entries(KINDS).flatMap(([kind, schema]) => textsOf(schema, kind));
  assert.ok(fields.length > 100, `found only ${fields.length} fields`);
  const unknown = fields.filter(({ path, mark }) => mark === undefined && !PLAIN.has(path)).map(({ path }) => path);
  assert.deepEqual([...new Set(unknown)], [], 'use `field` of src/model/field.ts, or name them in PLAIN with care');
  const both = fields.filter(({ path, mark }) => mark !== undefined && PLAIN.has(path)).map(({ path }) => path);
  assert.deepEqual(both, []);
  const paths = new Set(fields.map(({ path }) => path));
  assert.deepEqual(
    [...PLAIN].filter((path) => !paths.has(path)),
    [],
    'PLAIN names fields that are gone',
  );
});

test('fields with such names cannot be plain', () => {
  const suspicious =
    /(?:File|url|Url|endpoint|host|smtp|path|branch|bucket|prefix|region|kubeconfig|username|repository)$/;
  assert.deepEqual(
    [...PLAIN].filter((path) => suspicious.test(path)),
    [],
  );
});

test('patterns in the CustomResourceDefinitions are in the API server’s language of patterns', () => {
  let patterns = 0;
  const look = (value: unknown): void => {
    if (typeof value !== 'object' || value === null) return;
    for (const [key, inner] of Object.entries(value)) {
      if (key === 'pattern' && typeof inner === 'string') {
        patterns++;
        assert.doesNotThrow(() => RE2JS.compile(inner), inner);
      } else look(inner);
    }
  };
  look(customResourceDefinitions());
  assert.ok(patterns > 10);
});

// What libraries and programs have read more out of than was meant.
const HOSTILE = [
  '?sendmail=true&path=/bin/sh&args=-c',
  '/?proxy=http://a',
  '#fragment',
  '@evil.example',
  'user:password@',
  'ext::sh -c id',
  '--upload-pack=touch x',
  '-oProxyCommand=id',
  '..',
  '../../etc/passwd',
  '/..',
  '%2e%2e%2f',
  '%2F',
  '%00',
  '%',
  '\\',
  '\0',
  '\r\nHost: evil',
  '\n',
  ' ',
  '\t',
  ',',
  ';',
  '`id`',
  '$(id)',
  '"',
  "'",
  '*',
  '[',
  '\u202e',
  '\u2028',
  '。', // browsers read it as a dot
  'ﬀ',
  'file:///etc/passwd',
  'data:text/plain,x',
  '0x7f.1',
  '2130706433',
  '127.1',
  '[::1',
  ':0',
  ':65536',
  ':080',
  '//',
  'HTTP://',
  '~root',
];
const GOOD = [
  'https://git.example.test/team/fleet.git',
  'http://127.0.0.1:8080/a/b',
  'https://[::1]:8443/',
  'https://api.example.test/v3?a=b%2Fc',
  'ssh://git@git.example.test:2222/team/fleet',
  'git@git.example.test:team/fleet.git',
  'smtp://mail.example.test:25',
  'smtps://mail.example.test',
  'people@example.test',
  `registry.example.test:5000/team/rules@sha256:${'a'.repeat(64)}`,
  'registry.example.test',
  'team/fleet',
  './secrets/token',
  'clusters/production',
  '../values.yaml',
  'main',
  'release/1.2',
  'a'.repeat(40),
  'eu-central-1',
];
const character = fc.constantFrom(...'abz09AZ-._~:/?#[]@!$&\'()*+,;=%\\ \t\r\n\0"<>^`{|}é\u202e\u2028', ...HOSTILE);
const hostile = fc.oneof(
  {
    weight: 3,
    arbitrary: fc.tuple(fc.constantFrom(...GOOD), fc.array(character, { maxLength: 3 }), fc.nat(60)).map(insert),
  },
  { weight: 1, arbitrary: fc.array(character, { maxLength: 12 }).map((c) => c.join('')) },
  { weight: 1, arbitrary: fc.string({ unit: 'binary', maxLength: 40 }) },
  { weight: 1, arbitrary: fc.webUrl({ withFragments: true, withQueryParameters: true }) },
  { weight: 1, arbitrary: fc.constantFrom(...GOOD) },
);

test('a hostile text is refused, or it is exactly what was parsed', () => {
  const fields = Object.entries(KINDS)
    .flatMap(([kind, schema]) => textsOf(schema, kind))
    .filter((f) => f.mark !== undefined);
  let taken = 0;
  fc.assert(
    fc.property(hostile, (text) => {
      for (const { path, schema, mark } of fields) {
        const result = z.safeParse(schema, text);
        if (!result.success) continue;
        taken++;
        assert.equal(result.data, text, `${path}: it is taken as it was written`);
        const parsed = mark?.parse(text);
        assert.equal(parsed?.kind, 'parsed', path);
        // Whatever it becomes: it is no option, one line, and holds nothing that is not seen.
        assert.doesNotMatch(text, /^-/, path);
        assert.doesNotMatch(text, /[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/u, path);
        if (mark?.becomes === 'address') isAsWritten(text, parsed?.kind === 'parsed' ? parsed.value : undefined, path);
        if (/\.(path|chart|values\[\]|trustPath|waivers|images)$/.test(path) && path.startsWith('Environment.'))
          assert.doesNotMatch(text.replace(/^(\.\.\/)+/, ''), /(^|\/)\.\.(\/|$)|^\/|\\|:/, path);
      }
    }),
    { numRuns: 3000 },
  );
  assert.ok(taken > 1000, `only ${taken} texts were taken: the test tries nothing`);
});

// Printed from its parts alone, an address is the text again: nothing was left over that somebody else could read.
function isAsWritten(text: string, value: unknown, path: string): void {
  if (typeof value === 'string' && path.endsWith('from')) assert.doesNotMatch(text, /[\s"<>,;:()[\]\\]/, path);
  const parts = (typeof value === 'object' && value !== null && 'address' in value ? value.address : value) as Record<
    string,
    unknown
  >;
  const port = (standard: number) =>
    parts['port'] === standard && !text.includes(`:${standard}`) ? '' : `:${String(parts['port'])}`;
  if ('scheme' in Object(parts)) isHttp(text, parts, path);
  else if ('secure' in Object(parts))
    assert.equal(
      `smtp${parts['secure'] === true ? 's' : ''}://${String(parts['host'])}${port(parts['secure'] === true ? 465 : 587)}`,
      text,
      path,
    );
  else if ('digest' in Object(parts))
    assert.equal(`${String(parts['registry'])}/${String(parts['name'])}@${String(parts['digest'])}`, text, path);
  else if (parts?.['by'] === 'ssh') {
    const { user, host, path: at } = parts as { user: string; host: string; path: string };
    assert.ok(
      [`ssh://${user}@${host}${port(22)}${at}`, `${user}@${host}:${at}`, `${user}@${host}:${at.slice(1)}`].includes(
        text,
      ),
      path,
    );
    assert.doesNotMatch(`${host}${at}`, /[^A-Za-z0-9./:_+@,=~[\]-]/, path);
  } else if (parts?.['by'] === 'path')
    assert.ok(text === parts['path'] || text === `file://${String(parts['path'])}`, path);
  else if (Array.isArray(value)) assert.equal(value.join('/'), text, path);
}

function isHttp(text: string, parts: Record<string, unknown>, path: string): void {
  const {
    scheme,
    host,
    port,
    path: at,
    query,
  } = parts as { scheme: string; host: string; port: number; path: string; query: string };
  const url = new URL(text);
  assert.deepEqual([url.username, url.password, url.hash], ['', '', ''], path);
  assert.deepEqual(
    [
      url.protocol,
      url.hostname,
      url.port === '' ? (scheme === 'https' ? 443 : 80) : Number(url.port),
      url.pathname,
      url.search,
    ],
    [`${scheme}:`, host, port, at, query === '' ? '' : `?${query}`],
    path,
  );
  assert.doesNotMatch(text, /[#\\\s"<>^`{|}]/, path);
  assert.ok(text.startsWith(`${scheme}://${host}`), path);
  assert.ok(path.endsWith('webhook.url') || (query === '' && !/\?./.test(text)), path);
}

function insert([text, more, at]: [string, string[], number]): string {
  return text.slice(0, at) + more.join('') + text.slice(at);
}

type Definition = {
  readonly type: string;
  readonly format?: unknown;
  readonly shape: Readonly<Record<string, z.core.$ZodType>>;
  readonly element: z.core.$ZodType;
  readonly keyType: z.core.$ZodType;
  readonly valueType: z.core.$ZodType;
  readonly options: readonly z.core.$ZodType[];
  readonly innerType: z.core.$ZodType;
};

// Every text that a schema has anywhere, with its path.
function textsOf(schema: z.core.$ZodType, path: string): Field[] {
  const def = schema._zod.def as unknown as Definition;
  const mark = interpreted.get(schema as never) as Field['mark'];
  switch (def.type) {
    case 'string': {
      const isClosed = ['datetime', 'date'].includes(String(def.format));
      const isDuration = !isClosed && z.safeParse(schema, '5m').success && !z.safeParse(schema, 'five').success;
      const isCron =
        !isClosed && z.safeParse(schema, '0 6 1 * *').success && !z.safeParse(schema, 'not a cron, at all').success;
      return isClosed || ((isDuration || isCron) && mark === undefined) ? [] : [{ path, schema, mark }];
    }
    case 'object':
      return Object.entries(def.shape).flatMap(([key, inner]) => textsOf(inner, `${path}.${key}`));
    case 'array':
      return textsOf(def.element, `${path}[]`);
    case 'record':
      return [...textsOf(def.keyType, `${path}.KEY`), ...textsOf(def.valueType, `${path}.*`)];
    case 'union':
      return def.options.flatMap((option) => textsOf(option, path));
    case 'optional':
    case 'default':
    case 'prefault':
    case 'nullable':
      return textsOf(def.innerType, path);
    case 'literal':
    case 'enum':
    case 'boolean':
    case 'number':
    case 'int':
    case 'unknown':
      return [];
    default:
      throw new Error(`${path}: this test knows no \`${def.type}\``);
  }
}

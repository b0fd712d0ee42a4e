import assert from 'node:assert/strict';
import { test } from 'node:test';
import { field } from '../../src/model/field.ts';
import {
  addressText,
  below,
  hostText,
  httpAddress,
  isIpAddress,
  isLoopback,
  type Parsed,
  parseChartAddress,
  parseGitSource,
  parseHttpAddress,
  parseImageReference,
  parseProject,
  parseRepositoryPath,
} from '../../src/model/index.ts';

const why = (parsed: Parsed<unknown>) => (parsed.kind === 'refused' ? parsed.why : 'taken');

test('an address over HTTP is scheme, host, port and path, and nothing more', () => {
  const refused: readonly (readonly [string, RegExp])[] = [
    ['', /does not begin/],
    ['file:///etc/passwd', /does not begin/],
    ['data:text/plain,x', /does not begin/],
    ['//host/a', /does not begin/],
    ['HTTPS://host/', /does not begin/],
    [' https://host/', /does not begin/],
    ['https://user@host/', /a user or a password/],
    ['https://user:password@host/', /a user or a password/],
    ['https://@host/', /a user or a password/],
    ['https://host/#', /a part after `#`/],
    ['https://host#a', /a part after `#`/],
    ['https://host?a=b', /a query/],
    ['https://host/?', /a query/],
    ['https://', /its host/],
    ['https://Host/', /its host/],
    ['https://-a/', /its host/],
    ['https://a-/', /its host/],
    ['https://a..b/', /its host/],
    ['https://a_b/', /its host/],
    ['https://a b/', /its host/],
    ['https://a\tb/', /its host/],
    ['https://a%2eb/', /its host/],
    ['https://例え.test/', /its host/],
    ['https://a\u3002b/', /its host/],
    ['https://127.1/', /its host/],
    ['https://2130706433/', /its host/],
    ['https://0x7f000001/', /its host/],
    ['https://0177.0.0.1/', /its host/],
    ['https://256.1.1.1/', /its host/],
    ['https://[::1/', /its host/],
    ['https://[fe80::1%25eth0]/', /its host/],
    ['https://[0:0:0:0:0:0:0:1]/', /its host/],
    ['https://host:/', /its port/],
    ['https://host:0/', /its port/],
    ['https://host:080/', /its port/],
    ['https://host:65536/', /its port/],
    ['https://host:80x/', /its port/],
    ['https://host/a b', /its path/],
    ['https://host/a\\b', /its path/],
    ['https://host/..', /its path/],
    ['https://host/a/../b', /its path/],
    ['https://host/./a', /its path/],
    ['https://host//a', /its path/],
    ['https://host/%2e%2e/a', /its path/],
    ['https://host/a%2Fb', /its path/],
    ['https://host/a%5cb', /its path/],
    ['https://host/%00', /its path/],
    ['https://host/%0d%0aHost:b', /its path/],
    ['https://host/%252f', /its path/],
    ['https://host/%', /its path/],
    ['https://host/%zz', /its path/],
    ['https://host/é', /its path/],
    [`https://host/${'a'.repeat(2048)}`, /longer than 2048/],
  ];
  for (const [text, message] of refused) assert.match(why(parseHttpAddress(text)), message, text);
  for (const text of [
    'https://host.example.test',
    'https://host/',
    'http://127.0.0.1:8080/a/b.c',
    'https://[::1]:8443/v3',
    'https://xn--bcher-kva.example/a',
    'https://host/a%20b/~c;d=1',
  ]) {
    const parsed = parseHttpAddress(text);
    assert.equal(
      parsed.kind === 'parsed' ? addressText(parsed.value).replace(/\/$/, '') : '',
      text.replace(/\/$/, ''),
      text,
    );
  }
  assert.throws(
    () => httpAddress('https://host/?token=very-secret'),
    (thrown: Error & { code: string }) => {
      assert.equal(thrown.code, 'config-invalid');
      assert.doesNotMatch(thrown.message, /very-secret/);
      return true;
    },
  );
});

test('a query is taken where a field takes one', () => {
  const parsed = httpAddress('https://host:8443/a?b=c%2Fd&e=%3D', { query: true });
  assert.deepEqual(parsed, { scheme: 'https', host: 'host', port: 8443, path: '/a', query: 'b=c%2Fd&e=%3D' });
  for (const text of ['https://h/?a b', 'https://h/?a"', 'https://h/?%', 'https://h/?a#b', 'https://h/?\n'])
    assert.notEqual(why(parseHttpAddress(text, { query: true })), 'taken', text);
});

test('what lies below an address keeps its host, and loses its query', () => {
  const at = httpAddress('https://host/api/?x=y', { query: true });
  assert.equal(addressText(below(at, '/a', 'b=c')), 'https://host/api/a?b=c');
  assert.equal(addressText(below(httpAddress('https://host'), '')), 'https://host/');
  assert.equal(hostText({ scheme: 'https', host: 'host', port: 443 }), 'host');
  assert.equal(hostText({ scheme: 'http', host: 'host', port: 443 }), 'host:443');
});

test('this machine is known by its own names only', () => {
  for (const host of ['localhost', '127.0.0.1', '127.9.9.9', '[::1]']) assert.ok(isLoopback(host), host);
  for (const host of ['localhost.example', '127.0.0.1.example', '128.0.0.1', '[::2]', '127.1', 'a'])
    assert.ok(!isLoopback(host), host);
  for (const host of ['10.0.0.1', '[fd00::1]']) assert.ok(isIpAddress(host), host);
  for (const host of ['10.0.0.1.example', 'a', '10.1', '0x0a.0.0.1', '']) assert.ok(!isIpAddress(host), host);
});

type Cases = { readonly taken: readonly string[]; readonly refused: readonly string[] };
const CASES: Readonly<Record<'gitSource' | 'branch' | 'path' | 'pathNear' | 'file' | 'sshFile' | 'host', Cases>> = {
  gitSource: {
    taken: [
      'https://h/a.git',
      'ssh://git@h:22/a/b',
      'git@h:a/b.git',
      '/srv/a',
      './a',
      '../a b',
      'a',
      'file:///srv/a',
      'ssh://git@h/~git/a',
    ],
    refused: [
      'ext::sh -c id',
      'fd::3',
      'git://h/a',
      'ftp://h/a',
      'HTTPS://h/a',
      '--upload-pack=id',
      '-a',
      'ssh://-oProxyCommand=id/a',
      'ssh://git@-oProxyCommand=id/a',
      'ssh://-a@h/a',
      'ssh://h/a',
      '-a@h:a',
      'git@h:-a',
      'git@h:../a',
      'git@h:a;id',
      'git@h:$(id)',
      'h:a',
      'file://h/a',
      'file:///a:b',
      'a\nb',
      '\0',
      '',
      'https://user@h/a',
      'https://h/a?b',
    ],
  },
  branch: {
    taken: ['main', 'release/1.2', 'a-b_c.d', 'ü'],
    refused: [
      '',
      '-a',
      '/a',
      'a/',
      'a//b',
      'a..b',
      'a.lock',
      'a.lock/b',
      '.a',
      'a/.b',
      'a.',
      'a b',
      'a~b',
      'a^b',
      'a:b',
      'a?b',
      'a*b',
      'a[b',
      'a\\b',
      '@',
      'a@{1}',
      'a\nb',
      'a\0b',
      'a\u202eb',
    ],
  },
  path: {
    taken: ['.', 'a', './a', 'a/b.yaml', 'a b', 'a/'],
    refused: [
      '',
      '/',
      '/a',
      '..',
      '../a',
      'a/../b',
      'a//b',
      'a/./b',
      '-a',
      'a/-b',
      'a\\b',
      'C:a',
      'a\nb',
      'a\0',
      '\u202ea',
      './../a',
    ],
  },
  pathNear: { taken: ['../a', '../../a/b', 'a', '.'], refused: ['..', '../', 'a/../b', '../-a', '../../', '/../a'] },
  file: {
    taken: ['a', '/a/b', '../a', './-a', 'a b:c'],
    refused: ['', '-a', '--a', 'a\nb', 'a\0b', 'a\u202eb', 'a'.repeat(4097)],
  },
  sshFile: { taken: ['/a/b', 'a b'], refused: ['%d/id', '$HOME/id', 'a"b', 'a\\b', '-a', 'a\nb'] },
  host: {
    taken: ['h', 'h.example:5000', '[::1]:1', '127.0.0.1'],
    refused: ['', 'H', 'h/a', 'h:', 'h:0', 'u@h', 'h?a', 'h#a', 'h h', '127.1'],
  },
};

test('Git sources, branches, paths, files and hosts are plain', () => {
  for (const [name, { taken, refused }] of Object.entries(CASES) as [keyof typeof CASES, Cases][]) {
    for (const text of taken) assert.ok(field[name].safeParse(text).success, `${name}: ${JSON.stringify(text)}`);
    for (const text of refused) assert.ok(!field[name].safeParse(text).success, `${name}: ${JSON.stringify(text)}`);
  }
});

test('images, charts and projects are plain', () => {
  const digest = `sha256:${'a'.repeat(64)}`;
  assert.equal(why(parseImageReference(`h:5000/a/b_c@${digest}`)), 'taken');
  for (const text of [
    `h/a/../b@${digest}`,
    `h/a//b@${digest}`,
    `h/A@${digest}`,
    `h/a?b@${digest}`,
    `h/%2e%2e@${digest}`,
    `u@h/a@${digest}`,
    `h/-a@${digest}`,
  ])
    assert.match(why(parseImageReference(text)), /its name is not a repository name|its host|not pinned/, text);
  for (const text of ['h/a:1', 'h/a', `h/a@${digest}x`, 'h/a@sha256:short'])
    assert.match(why(parseImageReference(text)), /not pinned by digest/, text);
  for (const text of ['oci://h/a/b', 'https://h/a-1.0.tgz']) assert.equal(why(parseChartAddress(text)), 'taken', text);
  for (const text of [
    'oci://h',
    'oci://h/a@b',
    'oci://h/a/../b',
    'oci://u@h/a',
    'https://h/a?b',
    'git::https://h/a',
    'file:///a',
    'oci://h/a b',
  ])
    assert.notEqual(why(parseChartAddress(text)), 'taken', text);
  for (const text of ['a/b', 'a/b/c', '.github/a']) assert.equal(why(parseProject(text)), 'taken', text);
  for (const text of ['a', 'a/..', '../a', 'a/.', 'a//b', '/a/b', 'a/b/', 'a/b?c', 'a%2Fb/c', '-a/b', 'a/b c', ''])
    assert.notEqual(why(parseProject(text)), 'taken', text);
});

test('names and paths have a longest length, and each is refused for its own reason', () => {
  const digest = `sha256:${'a'.repeat(64)}`;
  assert.match(why(parseImageReference(`registry.example.com/${'a'.repeat(256)}@${digest}`)), /its name/);
  const label = 'a'.repeat(63);
  assert.match(why(parseHttpAddress(`https://${label}.${label}.${label}.${label}/`)), /its host/);
  assert.match(why(parseGitSource(`ssh://git@example.com/${'a'.repeat(2048)}`)), /its path/);
  assert.match(why(parseRepositoryPath('/etc')), /inside the repository/);
});

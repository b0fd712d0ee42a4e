import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { createVerify, generateKeyPairSync } from 'node:crypto';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { createServer as createTcpServer } from 'node:net';
import { userInfo } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { IsomorphicRepository, NativeRepository, type Repository, sourceRef } from '../../src/git/index.ts';
import type { CountersignError } from '../../src/model/index.ts';
import { sourceAccess } from '../../src/open/source-access.ts';
import { findOnPath } from '../../src/tools/index.ts';
import { makeCertificates } from '../../src/webhook/index.ts';
import { Fleet, run, sshPerson } from '../kit/fleet.ts';
import { type GitServer, startGitServer } from '../kit/git-server.ts';
import { without } from '../kit/machine.ts';
import { scratch } from '../kit/scratch.ts';

// Real servers on loopback: HTTPS with an authority of its own and a password, and sshd.
const directory = scratch();
const git = { file: 'git', path: process.env['PATH'] ?? '' };
const dana = sshPerson(directory, 'dana');
const fleet = new Fleet(directory);
fleet.remote(fleet.bare);
const head = fleet.commit(dana, 'first', { 'a.yaml': 'a: 1\n' });
fleet.push();
let server: GitServer;
const file = (name: string, content: string) => {
  writeFileSync(join(directory, name), content, { mode: 0o600 });
  return join(directory, name);
};
let caFile = '';
const passwordFile = file('password', 'a secret token\n');

before(async () => {
  const tls = await makeCertificates(join(directory, 'tls'), '127.0.0.1', new Date());
  caFile = file('ca.pem', tls.ca);
  server = await startGitServer(directory, 0, { tls: { cert: tls.cert, key: tls.key }, login: 'robot:a secret token' });
});
after(() => server.stop());

for (const [name, open] of [
  ['the git program', (d: string): Repository => new NativeRepository(d, git)],
  ['isomorphic-git', (d: string): Repository => new IsomorphicRepository(d)],
] as const) {
  describe(`through ${name}`, () => {
    let n = 0;
    const fetchWith = async (credentials: Parameters<typeof sourceAccess>[0], url = `${server.url}/fleet.git`) => {
      const repository = open(join(directory, `${name.replaceAll(' ', '-')}-${++n}`));
      try {
        await repository.fetch(url, 'main', await sourceAccess(credentials)());
        return await repository.resolve(sourceRef('main'));
      } finally {
        repository.close();
      }
    };
    const quiet = (e: CountersignError) =>
      e.code === 'git-unreachable' && !/secret|token/.test(`${e.message} ${e.hint ?? ''} ${String(e.cause)}`);

    test('a password and an authority of one’s own open an HTTPS remote', async () => {
      assert.equal(await fetchWith({ username: 'robot', passwordFile, caFile }), head);
    });
    test('a wrong password does not, and is not told', async () => {
      await assert.rejects(
        fetchWith({ username: 'robot', passwordFile: file('wrong', 'another secret token'), caFile }),
        quiet,
      );
    });
    test('without a password it is refused and nobody is asked', async () => {
      await assert.rejects(fetchWith({ caFile }), quiet);
    });
    test('a server whose authority is not trusted is refused', async () => {
      await assert.rejects(fetchWith({ username: 'robot', passwordFile }), quiet);
    });
    test('a file that is not there is named', async () => {
      await assert.rejects(fetchWith({ passwordFile: join(directory, 'nowhere'), caFile }), { code: 'key-missing' });
    });
    test('a remote that sends elsewhere is not followed with a password', async () => {
      const heard: string[] = [];
      const other = createServer((request, response) => {
        heard.push(request.headers.authorization ?? 'nothing');
        response.writeHead(404).end();
      });
      await new Promise<void>((done) => other.listen(0, '127.0.0.1', done));
      const elsewhere = `http://localhost:${(other.address() as { port: number }).port}`;
      const sends = createServer((request, response) =>
        response.writeHead(302, { location: `${elsewhere}${request.url ?? ''}` }).end(),
      );
      await new Promise<void>((done) => sends.listen(0, '127.0.0.1', done));
      const url = `http://127.0.0.1:${(sends.address() as { port: number }).port}/fleet.git`;
      await assert.rejects(fetchWith({ passwordFile }, url), quiet);
      assert.deepEqual(heard, []);
      for (const s of [other, sends]) {
        s.close();
        s.closeAllConnections();
      }
    });
    test('approvals that were rewritten are refused: a rejection could be gone', async () => {
      const other = new Fleet(directory, `rewound-${name.length}`);
      other.remote(other.bare);
      other.commit(dana, 'first', { 'a.yaml': 'a: 1\n' });
      other.push();
      const put = (content: string) => {
        const tree = run('git', ['mktree'], {
          cwd: other.bare,
          input: `100644 blob ${run('git', ['hash-object', '-w', '--stdin'], { cwd: other.bare, input: content })}\tx\n`,
        });
        run(
          'git',
          [
            'update-ref',
            'refs/countersign/approvals',
            run('git', ['-c', 'user.name=x', '-c', 'user.email=x@example.test', 'commit-tree', '-m', 'x', tree], {
              cwd: other.bare,
            }),
          ],
          { cwd: other.bare },
        );
      };
      put('one');
      const url = `${server.url}/${other.bare.split('/').at(-1)}`;
      const access = await sourceAccess({ username: 'robot', passwordFile, caFile })();
      const repository = open(join(directory, `rewound-store-${name.length}`));
      await repository.fetch(url, 'main', access);
      put('another root');
      await assert.rejects(repository.fetch(url, 'main', access), { code: 'git-rewound' });
      repository.close();
    });
  });
}

describe('over SSH, by the git program', { skip: without('sshd') }, () => {
  const client = sshPerson(directory, 'client');
  const stranger = sshPerson(directory, 'stranger');
  const host = sshPerson(directory, 'hostkey');
  const otherHost = sshPerson(directory, 'otherhost');
  let sshd: ChildProcess | undefined;
  let port = 0;
  const program = findOnPath('sshd', '/usr/sbin:/usr/bin') ?? '';

  before(async () => {
    port = await freePort();
    const config = file(
      'sshd_config',
      [
        `Port ${port}`,
        'ListenAddress 127.0.0.1',
        `HostKey ${host.signingKey}`,
        `AuthorizedKeysFile ${file('authorized_keys', `${client.publicKey}\n`)}`,
        'PidFile none',
        'UsePAM no',
        'StrictModes no',
        'PasswordAuthentication no',
        'KbdInteractiveAuthentication no',
        'PermitRootLogin yes',
      ].join('\n'),
    );
    mkdirSync('/run/sshd', { recursive: true });
    sshd = spawn(program, ['-D', '-e', '-f', config], { stdio: 'ignore' });
    await answers(port);
  });
  after(() => sshd?.kill());

  const knownHosts = (person: typeof host) =>
    file(`known-${person.name}`, `[127.0.0.1]:${port} ${person.publicKey.split(' ').slice(0, 2).join(' ')}\n`);
  const fetchWith = async (credentials: Parameters<typeof sourceAccess>[0]) => {
    const repository = new NativeRepository(join(directory, `ssh-${Math.random()}`), git);
    try {
      await repository.fetch(
        `ssh://${userInfo().username}@127.0.0.1:${port}${fleet.bare}`,
        'main',
        await sourceAccess(credentials)(),
      );
      return await repository.resolve(sourceRef('main'));
    } finally {
      repository.close();
    }
  };

  test('a key and the right host key open the remote', async () => {
    assert.equal(await fetchWith({ sshKeyFile: client.signingKey, knownHostsFile: knownHosts(host) }), head);
  });
  test('another host key is refused, and so is none', async () => {
    await assert.rejects(
      fetchWith({ sshKeyFile: client.signingKey, knownHostsFile: knownHosts(otherHost) }),
      (e: CountersignError) => e.code === 'git-unreachable' && /host key/.test(e.message),
    );
    await assert.rejects(
      fetchWith({ sshKeyFile: client.signingKey }),
      (e: CountersignError) => e.code === 'git-unreachable' && /host key/.test(e.message),
    );
  });
  test('another key is refused', async () => {
    await assert.rejects(fetchWith({ sshKeyFile: stranger.signingKey, knownHostsFile: knownHosts(host) }), {
      code: 'git-unreachable',
    });
  });
});

test('a GitHub App fetches with a token that it gets for its installation, and renews it in time', async () => {
  const { publicKey, privateKey } = generateKeyPairSync('rsa', { modulusLength: 2048 });
  const asked: string[] = [];
  let life = 3600;
  const api = createServer((request, response) => {
    const [head64, body64, signature] = (request.headers.authorization ?? '').replace('Bearer ', '').split('.') as [
      string,
      string,
      string,
    ];
    const claims = JSON.parse(Buffer.from(body64, 'base64url').toString()) as { iss: string; iat: number; exp: number };
    const good = createVerify('sha256')
      .update(`${head64}.${body64}`)
      .verify(publicKey, Buffer.from(signature, 'base64url'));
    asked.push(`${request.method} ${request.url} ${good} ${claims.iss} ${claims.exp - claims.iat <= 600}`);
    response.writeHead(201, { 'content-type': 'application/json' });
    response.end(
      JSON.stringify({ token: 'a secret token', expires_at: new Date(Date.now() + life * 1000).toISOString() }),
    );
  });
  await new Promise<void>((done) => api.listen(0, '127.0.0.1', done));
  const apiUrl = `http://127.0.0.1:${(api.address() as { port: number }).port}`;
  const privateKeyFile = file('app.pem', String(privateKey.export({ type: 'pkcs8', format: 'pem' })));
  const access = sourceAccess({ caFile, githubApp: { appId: '7', installationId: '42', privateKeyFile, apiUrl } });
  const got = await access();
  assert.deepEqual([got.username, got.password], ['x-access-token', 'a secret token']);
  await access();
  assert.deepEqual(asked, ['POST /app/installations/42/access_tokens true 7 true'], 'kept while it lasts');
  life = 60;
  const short = sourceAccess({ githubApp: { appId: '7', installationId: '42', privateKeyFile, apiUrl } });
  await short();
  await short();
  assert.equal(asked.length, 3, 'asked again shortly before its end');
  api.close();
  await assert.rejects(
    sourceAccess({ githubApp: { appId: '7', installationId: '42', privateKeyFile: passwordFile, apiUrl } })(),
    {
      code: 'key-unusable',
    },
  );
});

test('credentials are no arguments of a process', async () => {
  const repository = new NativeRepository(join(directory, 'arguments'), {
    ...git,
    file: file('spy', `#!/bin/sh\necho "$@" >> ${join(directory, 'spied')}\nexec git "$@"\n`),
  });
  run('chmod', ['+x', join(directory, 'spy')]);
  await repository.fetch(
    `${server.url}/fleet.git`,
    'main',
    await sourceAccess({ username: 'robot', passwordFile, caFile })(),
  );
  repository.close();
  const spied = readFileSync(join(directory, 'spied'), 'utf8');
  assert.match(spied, /fetch/);
  assert.doesNotMatch(spied, /secret|Basic/);
});

async function freePort(): Promise<number> {
  const probe = createTcpServer();
  await new Promise<void>((done) => probe.listen(0, '127.0.0.1', done));
  const { port } = probe.address() as { port: number };
  await new Promise((done) => probe.close(done));
  return port;
}

async function answers(port: number): Promise<void> {
  for (const until = Date.now() + 120_000; Date.now() < until; ) {
    const open = await fetch(`http://127.0.0.1:${port}`).then(
      () => true,
      (e: Error) => !/ECONNREFUSED/.test(String((e.cause as Error | undefined)?.message)),
    );
    if (open) return;
    await new Promise((done) => setTimeout(done, 100));
  }
  throw new Error('sshd does not answer');
}

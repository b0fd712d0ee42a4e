import assert from 'node:assert/strict';
import { readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { loadConfiguration } from '../../src/config/index.ts';
import { openTrustStore } from '../../src/trust/index.ts';
import { environmentDocument, trustDocument, writeConfiguration } from '../kit/documents.ts';
import { endGpg, Fleet, openPgpPerson, type Person, run, sshPerson } from '../kit/fleet.ts';
import { type ForgeAnswer, type ForgeServer, pullRequest, review, startForge } from '../kit/forge-server.ts';
import { configMap, namespace } from '../kit/manifests.ts';
import { recorderAt } from '../kit/recorder.ts';
import { scratch } from '../kit/scratch.ts';
import { countersign, countersignProcess } from '../kit/service.ts';

const directory = scratch();
const [dana, lee, kim] = ['dana', 'lee', 'kim'].map((name) => sshPerson(directory, name)) as [Person, Person, Person];
const importer: Person = { ...sshPerson(directory, 'importer'), name: 'importer' };
const pat = openPgpPerson(directory, 'pat');
after(() => endGpg(pat.gnupgHome ?? ''));
const PATH = 'clusters/production';
let fleet: Fleet;
let configuration = '';
let first = '';
let feature = '';
let forge: ForgeServer;
let answers: Readonly<Record<string, ForgeAnswer>> = {};

before(async () => {
  forge = await startForge(() => answers);
  const { host } = new URL(forge.url);
  fleet = new Fleet(directory);
  fleet.remote(fleet.bare);
  const trust = trustDocument([dana, lee, kim, importer]) as {
    spec: {
      principals: { name: string; kind?: string; imports?: string[]; forgeAccounts?: object[] }[];
      groups: { members: string[] }[];
    };
  };
  for (const [i, p] of trust.spec.principals.entries()) {
    if (p.name === 'importer') Object.assign(p, { kind: 'bot', imports: [host], emails: [] });
    else p.forgeAccounts = [{ forge: host, id: String(i + 1) }];
  }
  trust.spec.groups = trust.spec.groups.map((g) => ({ ...g, members: g.members.filter((m) => m !== 'importer') }));
  configuration = writeConfiguration(join(directory, 'config'), [
    environmentDocument({ url: fleet.url, namespaces: ['shop'] }),
    trust,
  ]);
  first = fleet.commit(dana, 'first', { [`${PATH}/ns.yaml`]: namespace('shop') });
  fleet.push();
  fleet.git(undefined, 'switch', '--quiet', '-c', 'feature');
  feature = fleet.commit(dana, 'settings', { [`${PATH}/cm.yaml`]: configMap('shop', 'settings', { colour: 'red' }) });
});

const at = (...args: string[]) => countersign([...args, '--repo', fleet.work]);
const configured = (...args: string[]) => at(...args, '--config', configuration);

describe('approvals', () => {
  test('verify, reject, revoke, approve: what counts, and what stands against it', async () => {
    const none = await configured('approvals', 'verify', 'feature');
    assert.equal(none.code, 1, none.stderr);
    assert.match(none.stdout, /approval-missing[\s\S]*not approved {2}\w{12}\.\.\w{12}\n/);
    fleet.become(lee);
    assert.equal((await at('approve', 'feature', '--yes', '--reason', 'fine')).code, 0);
    assert.equal((await configured('approvals', 'verify', 'feature')).code, 0);
    fleet.become(kim);
    const rejected = await at('approvals', 'reject', 'feature', '--yes', '--reason', 'opens port 22');
    assert.match(rejected.stdout, /^rejected /);
    const refused = await configured('approvals', 'verify', 'feature', '--output', 'json');
    assert.equal(refused.code, 1);
    assert.deepEqual(
      (JSON.parse(refused.stdout) as { violations: { code: string }[] }).violations.map((v) => v.code),
      ['approval-rejected'],
    );
    const check = await configured('check', '--no-fetch');
    assert.match(check.stdout, /`kim` rejected .*opens port 22/);
    assert.match(check.stdout, /judged as of now: there is no ledger here/);
    assert.equal((await at('approvals', 'revoke', 'feature', '--yes')).code, 0);
    const offline = await configured('approvals', 'verify', 'feature', '--no-fetch');
    assert.equal(offline.code, 0, offline.stdout);
    assert.match(offline.stdout, /approved by lee {2}class A, exact {2}fine/);
  });

  test('list: every statement, whose it is, and why another does not count', async () => {
    const mallory = sshPerson(directory, 'mallory');
    fleet.become(mallory);
    await at('approve', 'feature', '--yes');
    const list = await configured('approvals', 'list');
    assert.equal(list.code, 0, list.stderr);
    assert.match(list.stdout, /approve {3}\w{12}\.\.\w{12} {2}lee .* A {2}.*fine/);
    assert.match(list.stdout, /reject .*kim/);
    assert.match(list.stdout, /no count {2}unknown-key/);
    assert.match(list.stdout, /4 statements\n$/);
    const lines = (await configured('approvals', 'list', '--no-fetch', '--output', 'jsonl')).stdout
      .trim()
      .split('\n')
      .map((l) => JSON.parse(l) as { decision?: string; counts: boolean });
    assert.deepEqual(
      lines.filter((l) => l.counts).map((l) => l.decision),
      ['approve', 'reject', 'revoke'],
    );
  });

  test('a key that only the ssh-agent has signs approvals, as it signs commits', async () => {
    const agent = run('ssh-agent', ['-s']);
    const env = {
      SSH_AUTH_SOCK: /SSH_AUTH_SOCK=([^;]+)/.exec(agent)?.[1] ?? '',
      SSH_AGENT_PID: /SSH_AGENT_PID=(\d+)/.exec(agent)?.[1] ?? '',
    };
    try {
      const robin = sshPerson(directory, 'robin');
      run('ssh-add', ['-q', robin.signingKey], { env });
      rmSync(robin.signingKey);
      fleet.become({ ...robin, signingKey: `key::${robin.publicKey}` });
      const result = await countersignProcess(['approve', 'feature', '--repo', fleet.work, '--yes', '--no-push'], {
        env,
      });
      assert.equal(result.code, 0, result.stderr);
      const gone = await countersignProcess(['approve', 'feature', '--repo', fleet.work, '--yes', '--no-push'], {
        env: { SSH_AUTH_SOCK: '' },
      });
      assert.equal(gone.code, 2);
      assert.match(gone.stderr, /ssh-keygen could not sign[\s\S]*ssh-agent/);
    } finally {
      run('ssh-agent', ['-k'], { env });
      fleet.git(undefined, 'fetch', '--quiet', 'origin', '+refs/countersign/approvals:refs/countersign/approvals');
    }
  });

  test('a rollback is approved as such, from the tip of the branch', async () => {
    fleet.become(lee);
    const result = await at(
      'approve',
      first,
      '--rollback',
      '--base',
      feature,
      '--yes',
      '--output',
      'json',
      '--no-push',
    );
    assert.equal(result.code, 0, result.stderr);
    assert.equal((JSON.parse(result.stdout) as { from: string }).from, feature);
    const unknown = await at('approve', first, '--rollback', '--yes');
    assert.equal(unknown.code, 2);
    assert.match(unknown.stderr, /cannot determine which revision to go back from/);
  });

  test('import: a forge’s reviews, signed by the bot and labelled', async () => {
    fleet.git(undefined, 'switch', '--quiet', '-c', 'reviewed', 'main');
    const head = fleet.commit(dana, 'more', { [`${PATH}/cm.yaml`]: configMap('shop', 'settings', { colour: 'blue' }) });
    answers = {
      '/repos/team/fleet/pulls/12': { body: pullRequest(head, { host: new URL(forge.url).host }) },
      '/repos/team/fleet/pulls/12/reviews?limit=100': {
        body: [review(1, 2, 'APPROVED', head), review(2, 3, 'APPROVED', first)],
      },
    };
    fleet.become(importer);
    const token = join(directory, 'token');
    writeFileSync(token, 'a secret token\n');
    const args = [
      'approvals',
      'import',
      '--forge',
      'gitea',
      '--api-url',
      forge.url,
      '--project',
      'team/fleet',
      '--pull',
      '12',
      '--token-file',
      token,
    ];
    const imported = await at(...args);
    assert.equal(imported.code, 0, imported.stderr);
    assert.match(imported.stdout, /approved {3}user-2 \(2\) {2}for this commit \(class B\)/);
    assert.match(imported.stdout, /user-3 \(3\) {2}for \w{12}, an older state \(class C\)/);
    assert.ok(!imported.stdout.includes('secret'));
    const verdict = await configured('approvals', 'verify', 'reviewed');
    assert.equal(verdict.code, 1);
    assert.match(verdict.stdout, /approval-weak[\s\S]*`lee`’s review on the forge is of class B/);
    const raw = run('git', ['ls-tree', '-r', '--name-only', 'refs/countersign/approvals', 'raw/'], {
      cwd: fleet.work,
    }).split('\n');
    assert.equal(raw.length, 1, 'the forge’s answer is kept beside the statements');
    const other = await at(...args, '--branch', 'staging');
    assert.equal(other.code, 2);
    assert.match(other.stderr, /the request goes to `main`, not to `staging`/);
    for (const project of ['mallory/fleet', 'team/fleet/x', 'fleet']) {
      const repository = 'https://git.example.test/team/fleet.git';
      const fork = await at(
        ...args.map((a) => (a === 'team/fleet' ? project : a)),
        '--repository',
        repository,
        '--no-push',
      );
      assert.equal(fork.code, 2);
      assert.match(fork.stderr, new RegExp(`the project \`${project}\` is not the repository \`team/fleet\``));
    }
    const same = await at(...args, '--repository', 'ssh://git@git.example.test:2222/Team/Fleet', '--no-push');
    assert.equal(same.code, 0, same.stderr);
    await forge.stop();
    fleet.git(undefined, 'switch', '--quiet', 'feature');
  });
});

describe('provenance', () => {
  test('says whose clock it went by; an ended key counts by its claimed time, or by the ledger’s', async () => {
    const ended = trustDocument([dana], { required: 0 }) as { spec: { principals: { keys: object[] }[] } };
    (ended.spec.principals[0] as { keys: object[] }).keys = [
      { ssh: dana.publicKey, validBefore: new Date(Date.now() - 3_600_000).toISOString() },
    ];
    const trust = join(directory, 'ended.yaml');
    writeFileSync(trust, JSON.stringify(ended));
    const rows = async (...more: string[]) => {
      const result = await at('provenance', 'feature', '--trust', trust, '--output', 'jsonl', ...more);
      return {
        code: result.code,
        rows: result.stdout
          .trim()
          .split('\n')
          .map((l) => JSON.parse(l) as { code: string; verdict: string; times: { basis: string } }),
      };
    };
    const now = await rows();
    assert.deepEqual(
      [now.code, now.rows.map((r) => [r.verdict, r.code, r.times.basis])],
      [1, Array(2).fill(['refused', 'key-expired', 'now'])],
    );
    const claimed = await rows('--time', 'claimed');
    assert.deepEqual(
      [claimed.code, claimed.rows.map((r) => [r.verdict, r.times.basis])],
      [0, Array(2).fill(['verified', 'claimed'])],
    );
    const data = join(directory, 'ledger');
    const { ledger, recorder } = await recorderAt(data, () => new Date(Date.now() - 7_200_000));
    const evidence = recorder.asEvidence([first]);
    await recorder.record(
      {
        type: 'commits.seen',
        environment: 'production',
        ref: 'refs/heads/main',
        tip: first,
        count: 1,
        evidence: evidence.ref,
      },
      [evidence],
    );
    await ledger.close();
    const seen = await rows('--data', data, '--environment', 'production');
    assert.deepEqual(
      seen.rows.map((r) => [r.verdict, r.times.basis]),
      [
        ['verified', 'ledger'],
        ['refused', 'now'],
      ],
    );
  });

  test('a tag is judged under the name it has', async () => {
    fleet.git(dana, 'tag', '-s', '-m', 'release', 'v1', first);
    fleet.git(undefined, 'tag', 'light', first);
    fleet.git(undefined, 'update-ref', 'refs/tags/v2', run('git', ['rev-parse', 'refs/tags/v1'], { cwd: fleet.work }));
    assert.equal((await configured('provenance', 'v1', '--tag')).code, 0);
    assert.match(
      (await configured('provenance', 'v2', '--tag')).stdout,
      /tag-renamed[\s\S]*it is signed as `v1`, not as `v2`/,
    );
    assert.match((await configured('provenance', 'light', '--tag')).stdout, /tag-lightweight/);
    assert.equal((await configured('provenance', 'v9', '--tag')).code, 2);
  });
});

describe('trust', () => {
  test('lint finds what cannot work and what will surprise', async () => {
    const document = trustDocument([dana, lee, kim], {
      rules: [
        { name: 'alone', signers: ['dana'], approvals: { required: 0 } },
        { name: 'unreachable', signers: ['dana', 'lee'], approvals: { required: 2, from: ['dana', 'lee'] } },
      ],
    }) as { spec: { principals: { name: string; kind?: string; emails: string[]; keys: object[] }[] } };
    const [d, l, k] = document.spec.principals as unknown as [
      { emails: string[]; keys: object[] },
      { keys: object[] },
      { keys: object[] },
    ];
    d.emails = [];
    l.keys = [{ ssh: lee.publicKey, validBefore: new Date(Date.now() + 5 * 86_400_000).toISOString() }];
    k.keys = [];
    const file = join(directory, 'lint.yaml');
    writeFileSync(file, JSON.stringify(document));
    const result = await countersign(['trust', 'lint', '--trust', file, '--output', 'json']);
    assert.equal(result.code, 1, result.stderr);
    const found = (JSON.parse(result.stdout) as { code: string }[]).map((f) => f.code);
    assert.deepEqual([...new Set(found)].sort(), [
      'approvals-out-of-reach',
      'key-ends-soon',
      'no-address',
      'no-approval',
      'no-key',
    ]);
    const text = await countersign(['trust', 'lint', '--trust', file]);
    assert.match(text.stdout, /✗ approvals-out-of-reach[\s\S]*fix: [\s\S]*1 TrustPolicy: 1 error, /);
    writeFileSync(
      file,
      JSON.stringify({
        ...document,
        spec: { ...document.spec, allowedSigners: 'nobody@example.test ssh-ed25519 AAAA' },
      }),
    );
    assert.match((await countersign(['trust', 'lint', '--trust', file])).stdout, /✗ key-unusable[\s\S]*line 1/);
    writeFileSync(file, 'kind: TrustPolicy\n');
    assert.match((await countersign(['trust', 'lint', '--trust', file])).stdout, /✗ config-invalid/);
    const good = await countersign(['trust', 'lint', '--config', configuration]);
    assert.equal(good.code, 0, good.stdout);
  });

  test('list shows who is who, by which keys', async () => {
    const { stdout, code } = await countersign(['trust', 'list', '--config', configuration]);
    assert.equal(code, 0);
    assert.match(stdout, /^team\n {2}dana {2}person {2}dana@example\.test\n {4}ssh-ed25519 {2}SHA256:\S+\n/);
    assert.match(stdout, /importer {2}bot\n/);
    const [policy] = JSON.parse(
      (await countersign(['trust', 'list', '--config', configuration, '--output', 'json'])).stdout,
    ) as {
      keys: { principal: string }[];
    }[];
    assert.deepEqual(
      policy?.keys.map((k) => k.principal),
      ['dana', 'lee', 'kim', 'importer'],
    );
  });

  const imported = async (files: readonly string[], ...more: string[]) => {
    const result = await countersign(['trust', 'import', ...files, ...more]);
    assert.equal(result.code, 0, result.stderr);
    const document = `apiVersion: countersign.dev/v1alpha1\nkind: TrustPolicy\nmetadata: {name: team}\nspec:\n${result.stdout
      .split('\n')
      .map((l) => (l === '' ? '' : `  ${l}`))
      .join(
        '\n',
      )}\n  rules:\n    - {name: r, signers: [${/name: (\S+)/.exec(result.stdout)?.[1] ?? 'authority'}], approvals: {required: 0}}\n`;
    const file = join(directory, 'imported.yaml');
    writeFileSync(file, document);
    const [policy] = loadConfiguration([file]).trustPolicies;
    assert.ok(policy !== undefined);
    return { policy, store: await openTrustStore(policy), stderr: result.stderr };
  };
  const saved = (name: string, content: string | Buffer) => {
    writeFileSync(join(directory, name), content);
    return join(directory, name);
  };

  test('import turns allowed signers into principals, and leaves out what names nobody', async () => {
    const file = saved(
      'allowed_signers',
      `dana@example.test valid-before="20990101Z" ${dana.publicKey}\nlee@example.test,l@example.test ${lee.publicKey}\n* ${kim.publicKey}\n*@example.test cert-authority ${importer.publicKey}\n`,
    );
    const { policy, store, stderr } = await imported([file]);
    assert.deepEqual(
      policy.spec.principals.map((p) => [p.name, p.emails]),
      [
        ['dana', ['dana@example.test']],
        ['lee', ['lee@example.test', 'l@example.test']],
      ],
    );
    assert.equal(policy.spec.certificateAuthorities[0]?.principals, '*@example.test');
    assert.equal(store.ssh.size, 2);
    assert.match(stderr, /left out line 3: `\*` would attribute/);
  });

  test('import takes OpenPGP keys, armored and as a keyring, with their addresses', async () => {
    const armored = await imported([saved('pat.asc', pat.publicKey)]);
    assert.deepEqual(
      armored.policy.spec.principals.map((p) => [p.name, p.emails]),
      [['pat', ['pat@example.test']]],
    );
    run('gpg', ['--batch', '--export', '--output', join(directory, 'ring.gpg'), 'pat@example.test'], {
      env: { GNUPGHOME: pat.gnupgHome ?? '' },
    });
    const ring = await imported([join(directory, 'ring.gpg')]);
    assert.deepEqual([...ring.store.openpgpByFingerprint.keys()], [...armored.store.openpgpByFingerprint.keys()]);
  });

  test('import takes what forges give: NAME.keys, and listings as JSON', async () => {
    const weak = sshPerson(directory, 'weak', 'rsa', 1024);
    const keys = await imported(
      [saved('dana.keys', `${dana.publicKey}\n${weak.publicKey}\n`)],
      '--principal',
      'dana',
      '--email',
      'dana@example.test',
    );
    assert.equal(keys.store.ssh.size, 1);
    assert.match(keys.stderr, /left out .*1024 bits is too weak/);
    const listing = [
      {
        id: 1,
        key: dana.publicKey,
        title: 'laptop',
        created_at: '2026-01-01T00:00:00Z',
        expires_at: '2099-01-01T00:00:00Z',
        usage_type: 'signing',
      },
      { id: 2, key: lee.publicKey, title: 'login only', usage_type: 'auth' },
    ];
    const gitlab = await imported([saved('keys.json', JSON.stringify(listing))], '--principal', 'dana');
    assert.equal(gitlab.policy.spec.principals[0]?.keys[0]?.validBefore, '2099-01-01T00:00:00.000Z');
    assert.match(gitlab.stderr, /`login only`: it is an authentication key/);
    const github = await imported([
      saved(
        'gpg.json',
        JSON.stringify([
          {
            id: 3,
            key_id: 'X',
            raw_key: pat.publicKey,
            emails: [
              { email: 'pat@example.test', verified: true },
              { email: 'boss@example.test', verified: false },
            ],
          },
        ]),
      ),
    ]);
    assert.deepEqual(github.policy.spec.principals[0]?.emails, ['pat@example.test'], 'unverified addresses are claims');
  });

  test('import says what it cannot read, and whose keys it does not know', async () => {
    const nobody = await countersign(['trust', 'import', saved('x.keys', `${dana.publicKey}\n`)]);
    assert.equal(nobody.code, 2);
    assert.match(nobody.stderr, /does not say who owns its keys[\s\S]*--principal/);
    for (const content of ['', 'hello\n', '[1]', readFileSync(process.execPath).subarray(0, 2000)]) {
      const result = await countersign(['trust', 'import', saved('bad', content), '--principal', 'x']);
      assert.equal(result.code, 2, String(content));
      assert.match(result.stderr, /no keys could be read|fix: /);
      assert.doesNotMatch(result.stderr, /defect/);
    }
  });
});

import { execFileSync } from 'node:child_process';
import { cpSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, relative } from 'node:path';
import { backup, DatabaseSync } from 'node:sqlite';
import { fileURLToPath } from 'node:url';
import { tool } from '../scripts/tools.ts';
import { connect } from '../src/cluster/index.ts';
import type { KubernetesObject, Verdict } from '../src/model/index.ts';
import { freePorts, startControlPlane } from '../test/kit/control-plane.ts';
import { environmentDocument, trustDocument, writeConfiguration } from '../test/kit/documents.ts';
import { endGpg, Fleet, openPgpPerson, type Person, sshPerson } from '../test/kit/fleet.ts';
import { startGitServer } from '../test/kit/git-server.ts';
import { configMap, deployment, namespace, service } from '../test/kit/manifests.ts';
import { type CliResult, countersignProcess, Service, until } from '../test/kit/service.ts';
import { deploymentStatus } from '../test/kit/status.ts';
import { Narrator } from './narrator.ts';

// The main job as a story, on a throw-away control plane, with freshly made keys and the real service.
const ROOT = fileURLToPath(new URL('..', import.meta.url));
const OUT = join(ROOT, 'demo-output');
const PATH = 'clusters/production';
const ENV = 'production';
const keep = process.argv.includes('--keep');
const tell = new Narrator(process.stdout);

const directory = mkdtempSync(join(tmpdir(), 'countersign-demo-'));
const undo: (() => unknown)[] = [() => rmSync(directory, { recursive: true, force: true })];
let failed = false;
try {
  await story();
} catch (thrown) {
  failed = true;
  tell.broken(thrown);
} finally {
  if (!keep || failed) for (const step of undo.reverse()) await step();
}
process.exitCode = failed ? 1 : 0;

async function story(): Promise<void> {
  tell.title('Countersign: one cluster, two developers, and everything that could go wrong');
  const [etcd, apiserver, kubectlProgram] = [await tool('etcd'), await tool('kube-apiserver'), await tool('kubectl')];
  tell.begin();
  const controlPlane = await startControlPlane({ etcd, apiserver });
  undo.push(() => controlPlane.stop());
  const git = await startGitServer(directory);
  undo.push(() => git.stop());
  const dana = sshPerson(directory, 'dana');
  const lee = openPgpPerson(directory, 'lee');
  undo.push(() => endGpg(lee.gnupgHome ?? ''));
  const mallory = sshPerson(directory, 'mallory');
  const fleet = new Fleet(directory);
  fleet.remote(`${git.url}/fleet.git`);
  const parameters = { allowedRegistries: ['registry.example.test'], requiredLabels: ['team'] };
  const config = writeConfiguration(join(directory, 'config'), [
    environmentDocument({ url: fleet.url, namespaces: ['shop'], parameters }),
    trustDocument([dana, lee]),
  ]);
  const [port] = await freePorts(1);
  const data = join(directory, 'data');
  const start = () =>
    Service.start(
      ['--config', config, '--kubeconfig', controlPlane.kubeconfig('countersign'), '--webhook', `127.0.0.1:${port}`],
      data,
    );
  let serve = start();
  undo.push(() => serve.stop());
  await serve.says('countersign is running');
  tell.stage([
    `kube-apiserver and etcd on loopback, a fleet repository at ${fleet.url}`,
    'dana signs with SSH, lee with OpenPGP; each change needs the approval of the other',
    'countersign serve governs the namespace `shop`: reconciler and admission webhook',
  ]);

  const kubectl = (user: string, args: readonly string[], env: NodeJS.ProcessEnv = {}): CliResult => {
    try {
      const stdout = execFileSync(
        kubectlProgram,
        [
          '--kubeconfig',
          controlPlane.kubeconfig(user),
          ...(args.includes('--namespace') ? [] : ['--namespace', 'shop']),
          ...args,
        ],
        {
          env: { ...process.env, HOME: directory, ...env },
          stdio: 'pipe',
          encoding: 'utf8',
        },
      );
      return { code: 0, stdout, stderr: '' };
    } catch (thrown) {
      const { status, stdout, stderr } = thrown as { status: number; stdout: string; stderr: string };
      return { code: status, stdout, stderr };
    }
  };
  const live = (what: string, ns = 'shop'): KubernetesObject | undefined => {
    const { code, stdout } = kubectl('admin', ['get', what, '-o', 'json', '--namespace', ns]);
    return code === 0 ? (JSON.parse(stdout) as KubernetesObject) : undefined;
  };
  const replicas = () => (live('deployment/web')?.['spec'] as { replicas?: number } | undefined)?.replicas;
  const approve = async (who: Person, commit: string, reason: string) => {
    fleet.become(who);
    const result = await countersignProcess(['approve', commit, '--repo', fleet.work, '--reason', reason, '--yes'], {
      env: who.gnupgHome === undefined ? {} : { GNUPGHOME: who.gnupgHome },
    });
    expect(result.code === 0, `approve ended with ${result.code}: ${result.stderr}`);
  };
  // What was on the branch and refused is taken back: the next good commit must not stand on it.
  const denied = async (commit: string, code: string): Promise<Verdict> => {
    const judged = await serve.entry(
      'change.judged',
      ENV,
      (e) => e.to === commit && e.outcome === 'denied' && hasCode(serve.evidence<Verdict>(e.evidence), code),
    );
    expect(
      live('deployment/web')?.metadata.annotations?.['countersign.dev/revision'] !== commit,
      'the refused commit reached the cluster',
    );
    return serve.evidence<Verdict>(judged.entry.evidence);
  };
  const takeBack = () => {
    fleet.git(undefined, 'reset', '--quiet', '--hard', good);
    fleet.push('--force', 'main');
  };
  let good = '';

  await tell.scene('A signed, approved, compliant commit is applied', async () => {
    good = fleet.commit(dana, 'shop: run web', {
      [`${PATH}/namespace.yaml`]: namespace('shop'),
      [`${PATH}/web.yaml`]: deployment('shop', 'web'),
      [`${PATH}/service.yaml`]: service('shop', 'web'),
      [`${PATH}/settings.yaml`]: configMap('shop', 'settings', { colour: 'blue' }),
    });
    fleet.push();
    await approve(lee, good, 'reviewed for CHG-1');
    const result = await serve.entry('apply.result', ENV, (e) => e.revision === good && e.outcome === 'applied');
    const stamp = live('deployment/web')?.metadata.annotations ?? {};
    expect(stamp['countersign.dev/revision'] === good, 'the Deployment does not carry its revision');
    return {
      tried: 'dana pushes four manifests, signed with her SSH key; lee approves with her OpenPGP key',
      happened: `applied ${result.entry.applied} objects (ledger entry ${result.index}); Deployment shop/web says: revision ${good.slice(0, 12)}, ledger entry ${stamp['countersign.dev/ledger-entry']}`,
      why: 'the signer is known, someone else approved exactly this tree, and no rule objects',
    };
  });

  await tell.scene('An unsigned commit is refused', async () => {
    const commit = fleet.commit(
      dana,
      'shop: quick fix',
      { [`${PATH}/settings.yaml`]: configMap('shop', 'settings', { colour: 'red' }) },
      { sign: false },
    );
    fleet.push();
    await approve(lee, commit, 'looks fine');
    const verdict = await denied(commit, 'unsigned');
    takeBack();
    return { tried: 'dana pushes a commit without a signature; lee even approves it', ...reason(verdict, 'unsigned') };
  });

  await tell.scene('A commit signed with an unknown key is refused', async () => {
    const commit = fleet.commit(
      mallory,
      'shop: improve settings',
      { [`${PATH}/settings.yaml`]: configMap('shop', 'settings', { colour: 'black' }) },
      { author: dana },
    );
    fleet.push();
    await approve(lee, commit, 'dana wrote it, it says');
    const verdict = await denied(commit, 'unknown-key');
    takeBack();
    return {
      tried: 'mallory signs with her own key and writes dana’s name into the commit',
      ...reason(verdict, 'unknown-key'),
    };
  });

  await tell.scene('Self-approval is refused', async () => {
    const commit = fleet.commit(dana, 'shop: green', {
      [`${PATH}/settings.yaml`]: configMap('shop', 'settings', { colour: 'green' }),
    });
    fleet.push();
    await approve(dana, commit, 'I checked it twice');
    const verdict = await denied(commit, 'self-approval');
    takeBack();
    return { tried: 'dana signs a commit and approves it herself', ...reason(verdict, 'self-approval') };
  });

  await tell.scene('A privileged container is refused, with rule, file and line', async () => {
    const commit = fleet.commit(dana, 'shop: debug web', {
      [`${PATH}/web.yaml`]: deployment('shop', 'web', { privileged: true }),
    });
    const check = await countersignProcess([
      'check',
      '--repo',
      fleet.work,
      '--config',
      config,
      '--base',
      good,
      '--output',
      'json',
    ]);
    fleet.push();
    await approve(lee, commit, 'we need this for debugging');
    const verdict = await denied(commit, 'privileged');
    expect(
      check.code === 1 && hasCode(JSON.parse(check.stdout) as Verdict, 'privileged'),
      'the pre-merge check gave another verdict',
    );
    takeBack();
    return {
      tried: 'a signed and approved commit sets `privileged: true`',
      ...reason(verdict, 'privileged'),
      more: '`countersign check` said the same before the push, with exit code 1',
    };
  });

  await tell.scene('`kubectl edit` in the governed namespace is refused by the API server', async () => {
    const edit = kubectl('dev', ['edit', 'deployment', 'web'], { KUBE_EDITOR: "sed -i 's/replicas: 2/replicas: 9/'" });
    expect(edit.code !== 0 && replicas() === 2, 'the edit went through');
    await serve.entry('admission.denied', ENV, (e) => e.user === 'dev');
    const said = /denied the request: (.*)/.exec(edit.stderr.replaceAll('\n# ', ' '))?.[1] ?? edit.stderr;
    return {
      tried: 'a developer with cluster-admin rights scales web to 9 replicas with `kubectl edit`',
      happened: said.slice(0, 400),
      why: 'no recorded verdict allows this object; the attempt is on the ledger',
    };
  });

  await tell.scene('Break-glass is let through, and recorded', async () => {
    const patch = {
      metadata: {
        annotations: {
          'countersign.dev/break-glass': 'INC-4711: web is overloaded',
          'countersign.dev/break-glass-for': '3s',
        },
      },
      spec: { replicas: 6 },
    };
    const refused = kubectl('dev', ['patch', 'deployment', 'web', '-p', JSON.stringify(patch)]);
    const let_through = kubectl('oncall', ['patch', 'deployment', 'web', '-p', JSON.stringify(patch)]);
    expect(refused.code !== 0, 'someone outside of the group used break-glass');
    expect(let_through.code === 0 && replicas() === 6, `break-glass was not let through: ${let_through.stderr}`);
    const used = await serve.entry('breakglass.used', ENV, (e) => e.user === 'oncall');
    return {
      tried:
        'at 03:00 the on-call engineer scales web to 6, with a reason, for three seconds; a developer tries the same',
      happened: `let through for oncall (ledger entry ${used.index}, until ${used.entry.until.slice(11, 19)}); refused for dev`,
      why: 'oncall is in the environment’s break-glass group; the use will stand in every report',
    };
  });

  await tell.scene('Drift is reverted', async () => {
    await until(
      () => replicas() === 2,
      15_000,
      () => 'drift was not reverted',
    );
    const drift = await serve.entry('drift.found', ENV, () => true);
    const before = serve.entries('drift.found', ENV).length;
    kubectl('controller', ['delete', 'configmap', 'settings']);
    await until(
      () => serve.entries('drift.found', ENV).length > before && live('configmap/settings') !== undefined,
      15_000,
      () => 'the deleted ConfigMap did not come back',
    );
    return {
      tried: 'the break-glass time ends; then the cluster’s own machinery deletes a ConfigMap',
      happened: `replicas are 2 again (ledger entry ${drift.index}), and the ConfigMap is back`,
      why: 'what Git declares is defended; both were found, recorded and reverted by the loop',
    };
  });

  await tell.scene('`git revert` rolls back', async () => {
    const bad = fleet.commit(dana, 'shop: orange', {
      [`${PATH}/settings.yaml`]: configMap('shop', 'settings', { colour: 'orange' }),
      [`${PATH}/extra.yaml`]: configMap('shop', 'extra', { a: '1' }),
    });
    fleet.push();
    await approve(lee, bad, 'marketing wants it');
    await serve.entry('apply.result', ENV, (e) => e.revision === bad && e.outcome === 'applied');
    expect(
      (live('configmap/settings')?.['data'] as { colour?: string } | undefined)?.colour === 'orange',
      'the bad change was not applied',
    );
    const revert = fleet.revert(lee, bad);
    fleet.push();
    await approve(dana, revert, 'orange hurts');
    const result = await serve.entry('apply.result', ENV, (e) => e.revision === revert && e.outcome === 'applied');
    expect(
      (live('configmap/settings')?.['data'] as { colour?: string } | undefined)?.colour === 'blue',
      'the revert was not applied',
    );
    expect(live('configmap/extra') === undefined, 'what the bad change brought was not removed');
    return {
      tried: 'a change everyone regrets is applied; lee reverts it in Git, dana approves the revert',
      happened: `the colour is blue again and the added ConfigMap is gone (${result.entry.pruned} removed, ledger entry ${result.index})`,
      why: 'a rollback is a change like any other: signed, approved, judged, recorded',
    };
  });

  const { server: admin } = await connect({
    kubeconfig: controlPlane.kubeconfig('admin'),
    context: undefined,
    namedBy: 'operator',
  });
  undo.push(() => admin.close());
  const colourIn = (ns: string) =>
    (live(`configmap/settings`, ns)?.['data'] as { colour?: string } | undefined)?.colour;

  await tell.scene('A commit goes from staging (Kustomize) to production (Helm) when healthy', async () => {
    await serve.stop();
    const health = { wait: true, timeout: '60s' };
    writeConfiguration(join(directory, 'config'), [
      environmentDocument({ url: fleet.url, namespaces: ['shop'], parameters }),
      trustDocument([dana, lee]),
      environmentDocument({
        name: 'cart-staging',
        url: fleet.url,
        path: 'apps/cart/staging',
        namespaces: ['cart-staging'],
        parameters,
        spec: { health, render: { with: 'kustomize' } },
      }),
      environmentDocument({
        name: 'cart',
        url: fleet.url,
        path: 'apps/cart',
        namespaces: ['cart'],
        parameters,
        spec: {
          render: { with: 'helm', chart: 'chart', values: ['production.yaml'] },
          dependsOn: ['cart-staging'],
          promotion: { from: 'cart-staging', healthyFor: '1s' },
        },
      }),
    ]);
    const commit = fleet.commit(dana, 'cart: a first version', {
      'apps/cart/base/kustomization.yaml': 'resources: [web.yaml, settings.yaml]\n',
      'apps/cart/base/web.yaml': deployment('cart', 'web'),
      'apps/cart/base/settings.yaml': configMap('cart', 'settings', { colour: 'blue' }),
      'apps/cart/staging/kustomization.yaml': 'resources: [../base, namespace.yaml]\nnamespace: cart-staging\n',
      'apps/cart/staging/namespace.yaml': namespace('cart-staging'),
      'apps/cart/chart/Chart.yaml': 'apiVersion: v2\nname: cart\nversion: 1.0.0\n',
      'apps/cart/chart/templates/namespace.yaml': namespace('{{ .Release.Namespace }}').replace(
        /name: (.*)/,
        'name: "$1"',
      ),
      'apps/cart/chart/templates/settings.yaml': configMap('cart', 'settings', { colour: '{{ .Values.colour }}' }),
      'apps/cart/production.yaml': 'colour: blue\n',
    });
    fleet.push();
    await approve(lee, commit, 'reviewed for CHG-2');
    serve = start();
    await serve.entry('apply.intent', 'cart-staging', (e) => e.revision === commit);
    await until(
      () => live('deployment/web', 'cart-staging') !== undefined,
      15_000,
      () => 'staging has no Deployment',
    );
    expect(colourIn('cart') === undefined, 'production did not wait for staging');
    await deploymentStatus(admin, 'cart-staging', 'web', 'all');
    const there = await serve.entry('apply.result', 'cart-staging', (e) => e.revision === commit && e.healthy === true);
    const here = await serve.entry('apply.result', 'cart', (e) => e.revision === commit && e.outcome === 'applied');
    expect(colourIn('cart') === 'blue', 'production was not applied');
    return {
      tried:
        'two environments join: staging is built by kustomize, production by helm and takes only what staging had in health',
      happened: `staging was done when its Deployment was healthy (ledger entry ${there.index}), production after that (entry ${here.index})`,
      why: 'the programs saw only the files of the signed commit, without a network; health and order are part of the change',
    };
  });

  await tell.scene('A rollout that fails restores itself, and production never sees it', async () => {
    const commit = fleet.commit(dana, 'cart: red', {
      'apps/cart/base/settings.yaml': configMap('cart', 'settings', { colour: 'red' }),
      'apps/cart/base/web.yaml': deployment('cart', 'web', { image: 'registry.example.test/shop/web:2.0.0' }),
      'apps/cart/production.yaml': 'colour: red\n',
    });
    fleet.push();
    await approve(lee, commit, 'red sells');
    await serve.entry('apply.intent', 'cart-staging', (e) => e.revision === commit);
    await until(
      () => colourIn('cart-staging') === 'red',
      15_000,
      () => 'the change did not begin',
    );
    await deploymentStatus(admin, 'cart-staging', 'web', 'deadline');
    const failed = await serve.entry('apply.result', 'cart-staging', (e) => e.outcome === 'failed');
    await until(
      () => colourIn('cart-staging') === 'blue',
      15_000,
      () => 'staging was not restored',
    );
    await new Promise((resolve) => setTimeout(resolve, 2000));
    expect(colourIn('cart') === 'blue', 'what failed in staging reached production');
    return {
      tried: 'a signed and approved change is rolled out to staging, and its Deployment never becomes ready',
      happened: `failed (ledger entry ${failed.index}): ${(failed.entry.error ?? '').slice(0, 120)}; the last good revision is back, whole`,
      why: 'a change is done when its objects are healthy, or it is undone; the environment is held there until a new commit',
    };
  });

  await tell.scene('A report is made and verified offline', async () => {
    rmSync(OUT, { recursive: true, force: true });
    const made = await countersignProcess([
      'report',
      '--data',
      data,
      '--out',
      OUT,
      '--seed',
      'chosen by the auditor',
      '--output',
      'json',
    ]);
    expect(made.code === 0, `report ended with ${made.code}: ${made.stderr}`);
    mkdirSync(join(directory, 'auditor'));
    cpSync(OUT, join(directory, 'auditor'), { recursive: true });
    const good = await countersignProcess([
      'verify',
      join(directory, 'auditor', 'report.pdf'),
      '--key',
      join(data, 'ledger.pub'),
    ]);
    expect(good.code === 0, `verify ended with ${good.code}: ${good.stdout}`);
    const entries = readFileSync(join(directory, 'auditor', 'entries.jsonl'), 'utf8');
    writeFileSync(join(directory, 'auditor', 'entries.jsonl'), entries.replace('INC-4711', 'INC-4712'));
    const altered = await countersignProcess([
      'verify',
      join(directory, 'auditor', 'report.pdf'),
      '--key',
      join(data, 'ledger.pub'),
    ]);
    expect(altered.code === 1, 'an altered report was verified');
    cpSync(join(data, 'ledger.pub'), join(OUT, 'ledger.pub'));
    const { summary } = JSON.parse(made.stdout) as {
      summary: { changes: number; applied: number; denied: number; exceptions: number };
    };
    return {
      tried:
        'the compliance manager makes the report; an auditor verifies it with the public key alone, then one character is changed',
      happened: `${summary.changes} changes, ${summary.applied} applied, ${summary.denied} denied, ${summary.exceptions} exceptions (break-glass and drift among them); verified as made, not verified once changed`,
      why: `every number comes from entries under a signed checkpoint; see ${relative(process.cwd(), join(OUT, 'report.pdf'))}`,
    };
  });

  await tell.scene('One byte of a copied ledger is changed', async () => {
    const sound = await countersignProcess(['ledger', 'verify', '--data', data]);
    expect(sound.code === 0, `the ledger does not verify: ${sound.stdout}${sound.stderr}`);
    const copy = join(directory, 'copy');
    mkdirSync(copy);
    for (const file of ['ledger.pub', 'checkpoint']) cpSync(join(data, file), join(copy, file));
    const source = new DatabaseSync(join(data, 'ledger.db'), { readOnly: true });
    await backup(source, join(copy, 'ledger.db'));
    source.close();
    const changed = flipByte(join(copy, 'ledger.db'), 'INC-4711: web is overloaded');
    const altered = await countersignProcess(['ledger', 'verify', '--data', copy]);
    const used = serve.entries('breakglass.used', ENV)[0];
    expect(
      changed && altered.code === 1 && altered.stdout.includes(`entry ${used?.index}`),
      `the altered ledger was not found out: ${altered.stdout}${altered.stderr}`,
    );
    return {
      tried: 'someone with the database file changes one byte of the break-glass reason',
      happened: altered.stdout.trim().split('\n')[0] ?? '',
      why: 'each entry hashes to a leaf, the leaves to a root, and the root was signed',
    };
  });

  tell.end(join(relative(process.cwd(), OUT) || '.', 'report.pdf'));
  if (keep) {
    tell.addresses([
      `kubectl --kubeconfig ${controlPlane.kubeconfig('admin')} -n shop get all`,
      `repository  ${fleet.url} (working copy ${fleet.work})`,
      `service     pid ${serve.pid}, webhook https://127.0.0.1:${port}, data ${data}`,
      'left running; stop with Ctrl-C',
    ]);
    await new Promise<void>((resolve) => process.once('SIGINT', () => resolve()));
    for (const step of undo.reverse()) await step();
  }
}

function hasCode(verdict: Verdict, code: string): boolean {
  return verdict.violations.some((v) => v.code === code || v.rule === code);
}

function reason(verdict: Verdict, code: string): { happened: string; why: string } {
  const violation = verdict.violations.find((v) => v.code === code || v.rule === code);
  const place = violation?.source === undefined ? '' : ` at ${violation.source.file}:${violation.source.line}`;
  return {
    happened: `denied by \`${violation?.rule ?? violation?.code}\`${place}; nothing was applied`,
    why: `${violation?.message ?? ''}${violation?.hint === undefined ? '' : ` (fix: ${violation.hint})`}`,
  };
}

// Changes one byte of a text wherever it stands in the file.
function flipByte(file: string, text: string): boolean {
  const bytes = readFileSync(file);
  const at = bytes.indexOf(text);
  if (at < 0) return false;
  bytes[at + 4] = (bytes[at + 4] ?? 0) ^ 1;
  writeFileSync(file, bytes);
  return true;
}

function expect(condition: boolean, otherwise: string): void {
  if (!condition) throw new Error(otherwise);
}

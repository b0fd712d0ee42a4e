import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { homedir } from 'node:os';
import { dirname, join } from 'node:path';
import type { ProcessSettings } from '../config/index.ts';
import { version } from '../config/index.ts';
import { UserRepository } from '../git/index.ts';
import { CountersignError } from '../model/index.ts';
import { EXIT, type Io, paint } from '../terminal/index.ts';
import { findOnPath } from '../tools/index.ts';
import type { InitOptions } from './check-commands.ts';

/**
 * Implements `countersign init`: first documents and a CI job for a fleet repository, with the user's key. Overwrites
 * nothing.
 */
export async function init(options: InitOptions, settings: ProcessSettings, io: Io): Promise<number> {
  const user = new UserRepository(options.repo, findOnPath('git', settings.path) ?? 'git');
  await user.gitDirectory(); // refuses a directory outside of a repository
  for (const [flag, name] of [
    ['--environment', options.environment],
    ...options.namespace.map((n) => ['--namespace', n]),
  ])
    if (!NAME.test(name ?? ''))
      throw new CountersignError('usage', `\`${name}\` cannot be the name that ${flag} gives`, {
        hint: 'use lower-case letters, digits and dashes, at most 63',
      });
  const url = await user.config('remote.origin.url');
  const files = new Map([
    ['countersign/trust.yaml', trust(await principalOf(user))],
    ['countersign/environment.yaml', environment(options, url ?? 'https://git.example.com/team/fleet.git')],
    ['.github/workflows/countersign.yaml', WORKFLOW],
  ]);
  const present = [...files.keys()].filter((file) => existsSync(join(options.repo, file)));
  if (present.length > 0 && !options.force)
    throw new CountersignError('usage', `${present.map((f) => `\`${f}\``).join(', ')} already exists`, {
      hint: 'use --force to overwrite',
    });
  for (const [file, text] of files) {
    mkdirSync(dirname(join(options.repo, file)), { recursive: true });
    writeFileSync(join(options.repo, file), text);
  }
  if (options.output === 'json') io.out(`${JSON.stringify({ files: [...files.keys()] })}\n`);
  else {
    io.out(`${[...files.keys()].map((f) => `${paint(io, 'green', 'wrote')} ${f}`).join('\n')}\n\n`);
    if (url === undefined)
      io.out('there is no remote `origin`: set `spec.source.url` in countersign/environment.yaml\n\n');
    io.out(
      'next: add everyone’s keys to countersign/trust.yaml, then\n  countersign provenance HEAD     ' +
        '     who signed what so far\n  countersign check --base HEAD~1      what the gate would say\n',
    );
  }
  return EXIT.yes;
}

const NAME = /^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$/; // as `metadata.name` and `namespaces` of the schema

type FirstPrincipal = { readonly name: string; readonly email: string; readonly key: string | undefined };

async function principalOf(user: UserRepository): Promise<FirstPrincipal> {
  const email = (await user.config('user.email')) ?? 'you@example.com';
  const name =
    (email.split('@')[0] ?? 'you')
      .toLowerCase()
      .replace(/[^a-z0-9]+/g, '-')
      .replace(/^-+|-+$/g, '') || 'you';
  const signing = (await user.config('gpg.format')) === 'ssh' ? await user.config('user.signingkey') : undefined;
  return { name, email, key: signing === undefined ? undefined : publicKey(signing) };
}

function publicKey(signingKey: string): string | undefined {
  if (/^(key::)?(ssh-|ecdsa-)/.test(signingKey)) return signingKey.replace(/^key::/, '');
  const file = signingKey.replace(/^~\//, `${homedir()}/`);
  const candidate = file.endsWith('.pub') ? file : `${file}.pub`;
  return existsSync(candidate) ? readFileSync(candidate, 'utf8').trim() : undefined;
}

function trust({ name, email, key }: FirstPrincipal): string {
  const keyLine =
    key === undefined ? 'ssh: ssh-ed25519 AAAA… # replace with the public key you sign commits with' : `ssh: ${key}`;
  return `# Who may sign commits, and who must approve them. Change this file only by an approved change.
apiVersion: countersign.dev/v1alpha1
kind: TrustPolicy
metadata:
  name: team
spec:
  principals:
    - name: ${name}
      emails: [${email}]
      keys:
        - ${keyLine}
  groups:
    - name: developers
      members: [${name}]
  rules:
    - name: everything
      signers: [developers]
      approvals:
        required: 0 # with a second person in the group: 1
        from: [developers]
`;
}

// As a newcomer has the files: a chart or a kustomization is not read as plain YAML.
function renderOf({ repo, path }: InitOptions): string {
  const has = (file: string) => existsSync(join(repo, path, file));
  if (has('Chart.yaml')) return "\n  render: {with: helm, kubeVersion: '1.34'} # `values: [FILE]`, `release: NAME`";
  const isKustomization = ['kustomization.yaml', 'kustomization.yml', 'Kustomization'].some(has);
  return isKustomization ? '\n  render: {with: kustomize}' : '';
}

function environment(options: InitOptions, url: string): string {
  return `# One governed target: where it comes from, where it runs, and by which rules.
apiVersion: countersign.dev/v1alpha1
kind: Environment
metadata:
  name: ${options.environment}
spec:
  source:
    url: ${url}
    branch: main
    path: ${options.path}
  target:
    namespaces: [${options.namespace.join(', ')}]${unchosen(options.namespace)}${renderOf(options)}
  trust: team
  policies:
    bundles:
      - library: shipped # your own: \`countersign policy build\`, then \`file\`, \`path\`, \`repository\` or \`oci\`
    parameters: # what each rule takes: \`countersign check --explain RULE\`
      allowedRegistries: []
      requiredLabels: []
  admission:
    mode: audit # enforce once nothing is reported that should have passed
    breakGlass:
      groups: []
`;
}

// With one, it is the default.
function unchosen(namespaces: readonly string[]): string {
  return namespaces.length < 2 ? '' : `\n    # namespace: ${namespaces[0]} # for objects that do not set one`;
}

const WORKFLOW = `name: countersign
on: pull_request
jobs:
  check:
    runs-on: ubuntu-latest
    steps:
      - uses: actions/checkout@v4
        with:
          fetch-depth: 0 # the whole history: a shallow one cannot be judged
          ref: \${{ github.event.pull_request.head.sha }}
      - uses: actions/setup-node@v4
        with:
          node-version: 24
      - run: npx countersign@${version()} check --output github
`;

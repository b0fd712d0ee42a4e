import { readdirSync, readFileSync, statSync } from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import type { z } from 'zod';
import {
  type BundleSource,
  CountersignError,
  digestOf,
  type Environment,
  environmentSchema,
  messageOf,
  type Notifier,
  notifierSchema,
  type TrustPolicy,
  trustPolicySchema,
  type WaiverDocument,
  waiverSchema,
} from '../model/index.ts';
import { parseYaml, type YamlDocument, YamlError } from '../yaml/index.ts';

/** Everything that was configured, checked and cross-referenced. File references in it are absolute paths. */
export type Configuration = {
  readonly environments: readonly Environment[];
  readonly trustPolicies: readonly TrustPolicy[];
  readonly notifiers: readonly Notifier[];
  /** SHA-256 over all documents; it is written on the ledger when a service starts. */
  readonly digest: string;
};

type Problem = { readonly file: string; readonly line: number; readonly path: string; readonly text: string };

const MAX_FILE = 4 * 1024 * 1024; // a keyring of hundreds of people fits; a mistaken binary does not
const SCHEMAS = { Environment: environmentSchema, TrustPolicy: trustPolicySchema, Notifier: notifierSchema } as const;

/**
 * Reads every `.yaml` and `.yml` file under the paths (files or directories).
 * Throws one `config-invalid` error that lists every problem found in all of them.
 */
export function loadConfiguration(paths: readonly string[]): Configuration {
  const problems: Problem[] = [];
  const environments: Environment[] = [];
  const trustPolicies: TrustPolicy[] = [];
  const notifiers: Notifier[] = [];
  const places = new Map<string, string>();
  for (const file of paths.flatMap((path) => filesUnder(path))) {
    for (const document of readDocuments(file, problems)) {
      const parsed = checkDocument(file, document, problems);
      if (parsed === undefined) continue;
      const id = `${parsed.kind} \`${parsed.metadata.name}\``;
      const earlier = places.get(id);
      if (earlier !== undefined)
        problems.push({ file, line: document.line, path: 'metadata.name', text: `${id} is already declared at ${earlier}` });
      places.set(id, `${file}:${document.line}`);
      if (parsed.kind === 'Notifier') {
        notifiers.push(withAbsoluteFiles(parsed, file));
        continue;
      }
      if (parsed.kind === 'Environment') environments.push(withAbsolutePaths(parsed, file));
      else trustPolicies.push(withKeyFiles(parsed, file, document, problems));
      crossCheck(parsed, file, document, problems);
    }
  }
  for (const environment of environments) {
    if (!trustPolicies.some((t) => t.metadata.name === environment.spec.trust)) {
      const place = places.get(`Environment \`${environment.metadata.name}\``)?.split(/:(?=\d+$)/) ?? [];
      problems.push({
        file: place[0] ?? '',
        line: Number(place[1] ?? 1),
        path: 'spec.trust',
        text: `expected the name of a TrustPolicy, found \`${environment.spec.trust}\``,
      });
    }
  }
  for (const environment of environments) {
    const place = places.get(`Environment \`${environment.metadata.name}\``)?.split(/:(?=\d+$)/) ?? [];
    for (const { path, text } of referenceProblems(environment, environments))
      problems.push({ file: place[0] ?? '', line: Number(place[1] ?? 1), path, text });
  }
  if (problems.length > 0) throw invalid(problems);
  return { environments, trustPolicies, notifiers, digest: digestOf({ environments, trustPolicies, notifiers }) };
}

/**
 * Reads the one TrustPolicy of a text that is no file of ours: in a repository, keys and lists stand in the document
 * itself, so that a change of them is a change of it. Throws `config-invalid` with every problem.
 */
export function readTrustPolicy(text: string, file: string): TrustPolicy {
  const problems: Problem[] = [];
  const policies: TrustPolicy[] = [];
  for (const document of parseDocuments(text, file, problems)) {
    const parsed = checkDocument(file, document, problems);
    if (parsed?.kind !== 'TrustPolicy') {
      if (parsed !== undefined)
        problems.push({ file, line: document.line, path: 'kind', text: `expected \`TrustPolicy\`, found \`${parsed.kind}\`` });
      continue;
    }
    crossCheck(parsed, file, document, problems);
    for (const path of fileReferences(parsed))
      problems.push({
        file,
        line: document.lineOf(path),
        path: pathText(path),
        text: 'in a repository the content stands in the document itself',
      });
    policies.push(parsed);
  }
  if (problems.length === 0 && policies.length !== 1)
    problems.push({ file, line: 1, path: '', text: `expected one TrustPolicy, found ${policies.length}` });
  if (problems.length > 0) throw invalid(problems);
  return policies[0] as TrustPolicy;
}

/** Reads the one Waiver of a file. Throws `config-invalid` with every problem. */
export function readWaiver(text: string, file: string): { readonly document: WaiverDocument; readonly line: number } {
  const problems: Problem[] = [];
  const documents = parseDocuments(text, file, problems);
  const [first] = documents;
  if (problems.length === 0 && (first === undefined || documents.length !== 1))
    problems.push({ file, line: 1, path: '', text: `expected one Waiver, found ${documents.length} documents` });
  const parsed = first === undefined ? undefined : checkAgainst(waiverSchema, file, first, problems);
  if (problems.length > 0 || parsed === undefined || first === undefined) throw invalid(problems);
  return { document: parsed, line: first.line };
}

function fileReferences({ spec }: TrustPolicy): (string | number)[][] {
  return [
    ...spec.principals.flatMap((p, i) =>
      p.keys.flatMap((k, j) => (k.openpgpFile === undefined ? [] : [['spec', 'principals', i, 'keys', j, 'openpgpFile']])),
    ),
    ...(spec.allowedSignersFile === undefined ? [] : [['spec', 'allowedSignersFile']]),
    ...(spec.sshRevocationsFile === undefined ? [] : [['spec', 'sshRevocationsFile']]),
    ...(spec.sigstore?.trustedRootFile === undefined ? [] : [['spec', 'sigstore', 'trustedRootFile']]),
  ];
}

function filesUnder(path: string): string[] {
  try {
    if (!statSync(path).isDirectory()) return [path];
    return readdirSync(path, { recursive: true, withFileTypes: true })
      .filter((e) => e.isFile() && /\.ya?ml$/.test(e.name))
      .map((e) => join(e.parentPath, e.name))
      .sort();
  } catch (thrown) {
    throw new CountersignError('config-invalid', `cannot read the configuration at \`${path}\``, {
      cause: thrown,
      hint: 'name an existing file or directory with --config; `countersign init` writes a first one',
    });
  }
}

function readDocuments(file: string, problems: Problem[]): YamlDocument[] {
  try {
    if (statSync(file).size > MAX_FILE) throw new YamlError(`the file is larger than ${MAX_FILE} bytes`, 1);
    return parseDocuments(readFileSync(file, 'utf8'), file, problems);
  } catch (thrown) {
    problems.push({ file, line: 1, path: '', text: messageOf(thrown) });
    return [];
  }
}

function parseDocuments(text: string, file: string, problems: Problem[]): YamlDocument[] {
  try {
    if (text.length > MAX_FILE) throw new YamlError(`it is larger than ${MAX_FILE} bytes`, 1);
    return parseYaml(text);
  } catch (thrown) {
    problems.push({ file, line: thrown instanceof YamlError ? thrown.line : 1, path: '', text: messageOf(thrown) });
    return [];
  }
}

function checkDocument(file: string, document: YamlDocument, problems: Problem[]): Environment | TrustPolicy | Notifier | undefined {
  const kind = (document.value as { kind?: unknown } | null)?.kind;
  const schema = SCHEMAS[kind as keyof typeof SCHEMAS] as z.ZodType<Environment | TrustPolicy | Notifier> | undefined;
  if (schema === undefined || !Object.hasOwn(SCHEMAS, String(kind))) {
    problems.push({
      file,
      line: document.lineOf(['kind']),
      path: 'kind',
      text: `expected one of ${Object.keys(SCHEMAS).map(quoted).join(', ')}, found ${shown(kind)}`,
    });
    return undefined;
  }
  return checkAgainst(schema, file, document, problems);
}

function checkAgainst<T>(schema: z.ZodType<T>, file: string, document: YamlDocument, problems: Problem[]): T | undefined {
  const result = schema.safeParse(document.value);
  if (result.success) return result.data;
  for (const issue of result.error.issues) problems.push(...problemsOf(issue, file, document));
  return undefined;
}

function problemsOf(issue: z.core.$ZodIssue, file: string, document: YamlDocument): Problem[] {
  const path = issue.path as (string | number)[];
  const problem = (at: (string | number)[], text: string): Problem => ({ file, line: document.lineOf(at), path: pathText(at), text });
  if (issue.code === 'unrecognized_keys') return issue.keys.map((key) => problem([...path, key], `\`${key}\` is not a key here`));
  const found = shown(valueAt(document.value, path));
  if (issue.code === 'invalid_type') return [problem(path, `expected ${article(issue.expected)}, found ${found}`)];
  if (issue.code === 'invalid_value') return [problem(path, `expected ${issue.values.map(quoted).join(' or ')}, found ${found}`)];
  if (issue.code === 'too_small')
    return [
      problem(
        path,
        `expected at least ${issue.minimum} ${issue.origin === 'array' ? 'item(s)' : issue.origin === 'string' ? 'character(s)' : ''}, found ${found}`.replace(
          ' ,',
          ',',
        ),
      ),
    ];
  if (issue.code === 'too_big') return [problem(path, `expected at most ${issue.maximum}, found ${found}`)];
  return [problem(path, `expected ${issue.message}, found ${found}`)];
}

// Other environments that this one names: each must be there, and nobody may wait for themselves.
function referenceProblems(environment: Environment, all: readonly Environment[]): { path: string; text: string }[] {
  const { metadata, spec } = environment;
  const before = (e: Environment) => [...e.spec.dependsOn, ...(e.spec.promotion === undefined ? [] : [e.spec.promotion.from])];
  const byName = new Map(all.map((e) => [e.metadata.name, e]));
  const missing = before(environment)
    .filter((n) => !byName.has(n))
    .map((n) => ({
      path: spec.dependsOn.includes(n) ? 'spec.dependsOn' : 'spec.promotion.from',
      text: `expected the name of an Environment, found \`${n}\``,
    }));
  const reached = new Set<string>();
  for (const next = [...before(environment)]; next.length > 0; ) {
    const name = next.pop() as string;
    if (name === metadata.name)
      return [...missing, { path: 'spec', text: `\`${name}\` waits for itself, through \`dependsOn\` or \`promotion\`` }];
    if (reached.has(name)) continue;
    reached.add(name);
    const other = byName.get(name);
    if (other !== undefined) next.push(...before(other));
  }
  return missing;
}

// Names that must exist elsewhere in the same document.
function crossCheck(document: Environment | TrustPolicy, file: string, yaml: YamlDocument, problems: Problem[]): void {
  if (document.kind === 'Environment') {
    checkNamespaces(document, file, yaml, problems);
    return;
  }
  const { principals, groups, rules } = document.spec;
  const people = principals.map((p) => p.name);
  const known = new Set([...people, ...groups.map((g) => g.name)]);
  const report = (path: (string | number)[], text: string) => problems.push({ file, line: yaml.lineOf(path), path: pathText(path), text });
  principals.forEach((p, i) => {
    if (people.indexOf(p.name) !== i) report(['spec', 'principals', i, 'name'], `\`${p.name}\` is declared twice`);
  });
  groups.forEach((group, i) => {
    if (people.includes(group.name)) report(['spec', 'groups', i, 'name'], `\`${group.name}\` is also a principal`);
    group.members.forEach((member, j) => {
      if (!people.includes(member)) report(['spec', 'groups', i, 'members', j], `expected the name of a principal, found \`${member}\``);
    });
  });
  const roots = document.spec.roots;
  roots?.members.forEach((who, i) => {
    if (!known.has(who)) report(['spec', 'roots', 'members', i], `expected a principal or group, found \`${who}\``);
  });
  const rootPeople = new Set(roots?.members.flatMap((who) => groups.find((g) => g.name === who)?.members ?? [who]));
  if (roots !== undefined && roots.threshold > rootPeople.size)
    report(['spec', 'roots', 'threshold'], `${roots.threshold} approvals are required, but only ${rootPeople.size} principal(s) are roots`);
  const accounts = new Map<string, string>();
  const addresses = new Map<string, string>();
  principals.forEach((p, i) => {
    p.forgeAccounts.forEach(({ forge, id }, j) => {
      const owner = accounts.get(`${forge}/${id}`);
      if (owner !== undefined) report(['spec', 'principals', i, 'forgeAccounts', j], `this account is \`${owner}\`’s already`);
      accounts.set(`${forge}/${id}`, p.name);
    });
    p.emails.forEach((email, j) => {
      const owner = addresses.get(email.toLowerCase());
      if (owner !== undefined && owner !== p.name) report(['spec', 'principals', i, 'emails', j], `this address is \`${owner}\`’s already`);
      addresses.set(email.toLowerCase(), p.name);
    });
    if (p.kind === 'person' && p.imports.length > 0)
      report(['spec', 'principals', i, 'imports'], 'only a bot imports reviews: a person’s key would speak for others');
  });
  rules.forEach((rule, i) => {
    rule.signers.forEach((who, j) => {
      if (!known.has(who)) report(['spec', 'rules', i, 'signers', j], `expected a principal or group, found \`${who}\``);
    });
    rule.approvals.from.forEach((who, j) => {
      if (!known.has(who)) report(['spec', 'rules', i, 'approvals', 'from', j], `expected a principal or group, found \`${who}\``);
    });
    const able = new Set(rule.approvals.from.flatMap((who) => groups.find((g) => g.name === who)?.members ?? [who]));
    if (rule.approvals.required > able.size)
      report(
        ['spec', 'rules', i, 'approvals', 'required'],
        `${rule.approvals.required} approvals are required, but only ${able.size} principal(s) may give one`,
      );
  });
}

const NEVER_GOVERNED = ['kube-system', 'kube-node-lease', 'kube-public'];

// A gate over these would stand in the way of the cluster's own repair, and of its own.
function checkNamespaces(environment: Environment, file: string, yaml: YamlDocument, problems: Problem[]): void {
  environment.spec.target.namespaces.forEach((namespace, i) => {
    if (!NEVER_GOVERNED.includes(namespace)) return;
    const path = ['spec', 'target', 'namespaces', i];
    problems.push({
      file,
      line: yaml.lineOf(path),
      path: pathText(path),
      text: `\`${namespace}\` belongs to the cluster and cannot be governed`,
    });
  });
}

function withAbsolutePaths(environment: Environment, file: string): Environment {
  const { source, target, policies } = environment.spec;
  const here = dirname(resolve(file));
  return {
    ...environment,
    spec: {
      ...environment.spec,
      source: {
        ...source,
        url: isAddress(source.url) ? source.url : resolve(here, source.url),
        ...(source.credentials === undefined ? {} : { credentials: absoluteCredentials(source.credentials, here) }),
        ...(source.receiver === undefined
          ? {}
          : { receiver: { ...source.receiver, secretFile: resolve(here, source.receiver.secretFile) } }),
      },
      target: target.kubeconfig === undefined ? target : { ...target, kubeconfig: resolve(here, target.kubeconfig) },
      policies: { ...policies, bundles: policies.bundles.map((b) => absoluteBundle(b, here)) },
    },
  };
}

function withAbsoluteFiles(notifier: Notifier, file: string): Notifier {
  const here = dirname(resolve(file));
  const [[target, options] = ['', {}]] = Object.entries(notifier.spec.to);
  const made = Object.fromEntries(
    Object.entries(options as Record<string, string>).map(([key, value]) => [key, key.endsWith('File') ? resolve(here, value) : value]),
  );
  return { ...notifier, spec: { ...notifier.spec, to: { [target]: made } as Notifier['spec']['to'] } };
}

// `https://…`, `ssh://…`, or `user@host:path` as scp writes it.
function isAddress(url: string): boolean {
  return /^[a-z+]+:\/\//i.test(url) || /^[^@/]+@[^/:]+:/.test(url);
}

function absoluteBundle(source: BundleSource, here: string): BundleSource {
  if ('file' in source) return { ...source, file: resolve(here, source.file) };
  if ('repository' in source && !isAddress(source.repository.url))
    return { ...source, repository: { ...source.repository, url: resolve(here, source.repository.url) } };
  if (!('oci' in source)) return source;
  const files = ['credentialsFile', 'caFile'] as const;
  return {
    ...source,
    ...Object.fromEntries(files.flatMap((key) => (source[key] === undefined ? [] : [[key, resolve(here, source[key])]]))),
  };
}

type Credentials = NonNullable<Environment['spec']['source']['credentials']>;

function absoluteCredentials(credentials: Credentials, here: string): Credentials {
  const files = ['passwordFile', 'sshKeyFile', 'knownHostsFile', 'caFile'] as const;
  const { githubApp } = credentials;
  return {
    ...credentials,
    ...Object.fromEntries(files.flatMap((key) => (credentials[key] === undefined ? [] : [[key, resolve(here, credentials[key])]]))),
    ...(githubApp === undefined ? {} : { githubApp: { ...githubApp, privateKeyFile: resolve(here, githubApp.privateKeyFile) } }),
  };
}

// Key files are read in, so that the digest of the configuration covers the keys themselves. One that is missing is a
// problem like any other: without its list of revoked keys, a policy would trust them.
function withKeyFiles(policy: TrustPolicy, file: string, yaml: YamlDocument, problems: Problem[]): TrustPolicy {
  const read = (name: string, path: (string | number)[]): Buffer | undefined => {
    try {
      const place = resolve(dirname(file), name);
      if (statSync(place).size > MAX_FILE) throw new Error('too large');
      return readFileSync(place);
    } catch {
      problems.push({ file, line: yaml.lineOf(path), path: pathText(path), text: `expected a readable key file, found \`${name}\`` });
      return undefined;
    }
  };
  const { allowedSignersFile, sshRevocationsFile, ...spec } = policy.spec;
  const principals = spec.principals.map((principal, i) => ({
    ...principal,
    keys: principal.keys.map((key, j) => {
      if (key.openpgpFile === undefined) return key;
      const { openpgpFile, ...rest } = key;
      return { ...rest, openpgp: read(openpgpFile, ['spec', 'principals', i, 'keys', j, 'openpgpFile'])?.toString('utf8') };
    }),
  }));
  const signers = allowedSignersFile === undefined ? undefined : read(allowedSignersFile, ['spec', 'allowedSignersFile']);
  const revocations = sshRevocationsFile === undefined ? undefined : read(sshRevocationsFile, ['spec', 'sshRevocationsFile']);
  const { trustedRootFile, ...sigstore } = spec.sigstore ?? {};
  const root = trustedRootFile === undefined ? undefined : read(trustedRootFile, ['spec', 'sigstore', 'trustedRootFile']);
  return {
    ...policy,
    spec: {
      ...spec,
      principals,
      ...(root === undefined ? {} : { sigstore: { certificateLogs: 1, ...sigstore, trustedRoot: root.toString('utf8') } }),
      ...(signers === undefined ? {} : { allowedSigners: `${spec.allowedSigners ?? ''}\n${signers.toString('utf8')}` }),
      ...(revocations === undefined ? {} : { sshRevocations: revocationText(revocations) }),
    },
  };
}

// Binary lists are kept as base64, in which the schema takes them too.
function revocationText(bytes: Buffer): string {
  return bytes.subarray(0, 6).toString('latin1') === 'SSHKRL' ? bytes.toString('base64') : bytes.toString('utf8');
}

function invalid(problems: readonly Problem[]): CountersignError {
  const sorted = [...problems].sort((a, b) => (a.file < b.file ? -1 : a.file > b.file ? 1 : a.line - b.line));
  const lines = sorted.map((p) => `  ${p.file}:${p.line}: ${p.path === '' ? '' : `${p.path}: `}${p.text}`);
  return new CountersignError('config-invalid', `the configuration has ${problems.length} problem(s):\n${lines.join('\n')}`, {
    hint: 'docs/configuration.md lists every key',
  });
}

function valueAt(value: unknown, path: readonly (string | number)[]): unknown {
  return path.reduce<unknown>((v, key) => (v as Record<string | number, unknown> | undefined)?.[key], value);
}

function pathText(path: readonly (string | number)[]): string {
  return path.reduce<string>((text, part) => (typeof part === 'number' ? `${text}[${part}]` : text === '' ? part : `${text}.${part}`), '');
}

// Long values are cut: a key pasted into the wrong place should not fill the screen.
function shown(value: unknown): string {
  if (value === undefined) return 'nothing';
  if (Array.isArray(value)) return `a list of ${value.length}`;
  if (typeof value === 'object' && value !== null) return 'a mapping';
  const text = String(value);
  return `\`${text.length > 60 ? `${text.slice(0, 60)}…` : text}\``;
}

function quoted(value: unknown): string {
  return `\`${String(value)}\``;
}

function article(type: string): string {
  const words: Record<string, string> = {
    string: 'text',
    array: 'a list',
    object: 'a mapping',
    record: 'a mapping',
    boolean: '`true` or `false`',
    int: 'a whole number',
    number: 'a number',
  };
  return words[type] ?? type;
}

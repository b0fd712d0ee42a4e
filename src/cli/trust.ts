import { readFileSync } from 'node:fs';
import type { Configuration } from '../config/index.ts';
import { CountersignError, count, messageOf } from '../model/index.ts';
import { openConfiguration, openTrust } from '../open/index.ts';
import { EXIT, type Io, paint, plain } from '../terminal/index.ts';
import { describeKeys, importKeys, type KeyDescription, type LintFinding, lintPolicy } from '../trust/index.ts';
import type { TrustImportOptions, TrustLintOptions, TrustListOptions } from './trust-commands.ts';

type Common = { config: string[]; trust?: string; output: 'text' | 'json' };

const MAX_FILE = 16 * 1024 * 1024; // the keyring of a large company

/** Implements `countersign trust lint`: lists what will not work, and what is surprising. */
export async function trustLint(options: TrustLintOptions, io: Io): Promise<number> {
  const findings: (LintFinding & { policy: string })[] = [];
  const found = (policy: string, finding: LintFinding) => findings.push({ policy, ...finding });
  let configuration: Configuration | undefined;
  try {
    configuration = configurationOf(options);
  } catch (thrown) {
    if (!(thrown instanceof CountersignError) || thrown.code !== 'config-invalid') throw thrown;
    found('', { severity: 'error', code: thrown.code, message: thrown.message, hint: thrown.hint ?? '' });
  }
  const policies = configuration?.trustPolicies ?? [];
  for (const policy of policies) {
    const { name } = policy.metadata;
    await openTrust(configuration as Configuration, policy).catch((thrown: unknown) => {
      if (!(thrown instanceof CountersignError)) throw thrown;
      found(name, { severity: 'error', code: thrown.code, message: thrown.message, hint: thrown.hint ?? '' });
    });
    for (const finding of lintPolicy(policy, await describeKeys(policy), Date.now())) found(name, finding);
  }
  const errors = findings.filter((f) => f.severity === 'error').length;
  if (options.output === 'json') io.out(`${JSON.stringify(findings, null, 2)}\n`);
  else {
    for (const f of findings) {
      io.out(
        `${f.severity === 'error' ? paint(io, 'red', '✗') : paint(io, 'yellow', '!')} ` +
          `${f.code}${f.policy === '' ? '' : `  ${paint(io, 'dim', f.policy)}`}\n${indented(f.message)}`,
      );
      if (f.hint !== '') io.out(`    ${paint(io, 'dim', 'fix:')} ${f.hint}\n`);
    }
    io.out(
      `${findings.length === 0 ? '' : '\n'}${count(policies.length, 'TrustPolicy').replace('Policys', 'Policies')}: ` +
        `${count(errors, 'error')}, ${count(findings.length - errors, 'warning')}\n`,
    );
  }
  return errors === 0 ? EXIT.yes : EXIT.no;
}

/** Implements `countersign trust list`: principals, their keys, and how long the keys are valid. */
export async function trustList(options: TrustListOptions, io: Io): Promise<number> {
  const policies = configurationOf(options).trustPolicies;
  const all = await Promise.all(policies.map(async (policy) => ({ policy, keys: await describeKeys(policy) })));
  if (options.output === 'json') {
    const shown = all.map(({ policy, keys }) => ({
      policy: policy.metadata.name,
      principals: policy.spec.principals.map(({ keys: _, ...p }) => p),
      groups: policy.spec.groups,
      rules: policy.spec.rules,
      keys,
    }));
    io.out(`${JSON.stringify(shown, null, 2)}\n`);
    return EXIT.yes;
  }
  for (const { policy, keys } of all) {
    io.out(`${paint(io, 'bold', policy.metadata.name)}\n`);
    for (const p of policy.spec.principals) {
      io.out(`  ${p.name}  ${paint(io, 'dim', [p.kind, ...p.emails].join('  '))}\n`);
      for (const k of keys.filter((key) => key.principal === p.name && key.role === 'key'))
        io.out(`    ${keyRow(k, io)}\n`);
    }
    for (const k of keys.filter((key) => key.role !== 'key'))
      io.out(`  ${k.role} ${plain(k.principal)}\n    ${keyRow(k, io)}\n`);
    for (const g of policy.spec.groups) io.out(`  ${paint(io, 'dim', 'group')} ${g.name}: ${g.members.join(', ')}\n`);
  }
  return EXIT.yes;
}

/** Implements `countersign trust import FILE…`: prints keys from elsewhere as part of a TrustPolicy, for review. */
export async function trustImport(files: readonly string[], options: TrustImportOptions, io: Io): Promise<number> {
  const people = new Map<string, { emails: Set<string>; keys: object[] }>();
  const authorities: { ssh: string; principals: string }[] = [];
  for (const file of files) {
    const imported = await importKeys(readKeyFile(file)).catch((thrown: unknown) => {
      throw new CountersignError('key-unusable', `no keys could be read from \`${file}\`: ${messageOf(thrown)}`, {
        hint:
          'give allowed_signers, OpenPGP keys (armored or not), ' +
          'NAME.keys and NAME.gpg of a forge, or its key listings as JSON',
      });
    });
    for (const { emails, key } of imported.keys) {
      const name = options.principal ?? nameFrom(emails[0]);
      if (name === undefined)
        throw new CountersignError('usage', `\`${file}\` does not say who owns its keys`, {
          hint: 'use --principal NAME',
        });
      const person = people.get(name) ?? { emails: new Set(options.email.map((e) => e.toLowerCase())), keys: [] };
      for (const email of emails) person.emails.add(email);
      person.keys.push(key);
      people.set(name, person);
    }
    authorities.push(...imported.authorities);
    io.err(`${file}: ${imported.format}, ${count(imported.keys.length + imported.authorities.length, 'key')}\n`);
    for (const line of imported.leftOut) io.err(`  ${paint(io, 'yellow', 'left out')} ${plain(line)}\n`);
  }
  const principals = [...people].map(([name, { emails, keys }]) => ({
    name,
    kind: options.kind,
    emails: [...emails],
    keys,
  }));
  const certificateAuthorities = authorities.map((a, i) => ({ name: `authority-${i + 1}`, ...a }));
  if (options.output === 'json') io.out(`${JSON.stringify({ principals, certificateAuthorities }, null, 2)}\n`);
  else
    io.out(
      yamlOf({ principals, ...(certificateAuthorities.length === 0 ? {} : { certificateAuthorities }) }).trimStart(),
    );
  return EXIT.yes;
}

function configurationOf(options: Common): Configuration {
  const configuration = openConfiguration({
    config: options.trust === undefined ? options.config : [options.trust],
  });
  if (configuration.trustPolicies.length === 0)
    throw new CountersignError('usage', 'there is no TrustPolicy', {
      hint: 'name a file that contains one with --trust',
    });
  return configuration;
}

function keyRow(k: KeyDescription, io: Io): string {
  if (k.problem !== undefined && k.fingerprint === '') return paint(io, 'red', k.problem);
  const window = [
    k.validAfter === undefined ? '' : `from ${k.validAfter.slice(0, 10)}`,
    k.validBefore === undefined ? '' : `until ${k.validBefore.slice(0, 10)}`,
  ].filter((t) => t !== '');
  return [
    k.type,
    k.fingerprint,
    ...window,
    ...(k.revoked === undefined ? [] : [paint(io, 'red', `revoked: ${k.revoked}`)]),
  ].join('  ');
}

function readKeyFile(file: string): Buffer {
  try {
    const bytes = readFileSync(file);
    if (bytes.length > MAX_FILE) throw new Error(`it is larger than ${MAX_FILE} bytes`);
    return bytes;
  } catch (cause) {
    throw new CountersignError('usage', `\`${file}\` cannot be read: ${messageOf(cause)}`, { cause });
  }
}

function nameFrom(email: string | undefined): string | undefined {
  const name = email
    ?.split('@')[0]
    ?.toLowerCase()
    .replace(/[^a-z0-9]+/g, '-')
    .replace(/^-+|-+$/g, '')
    .slice(0, 63);
  return name === '' ? undefined : name;
}

// Writes lists and mappings of texts the way a person would; every text in double quotes (a JSON text is a YAML text)
// or as a block.
function yamlOf(value: unknown, indent = ''): string {
  if (Array.isArray(value))
    return value.length === 0
      ? ' []\n'
      : `\n${value.map((v) => `${indent}- ${yamlOf(v, `${indent}  `).trimStart()}`).join('')}`;
  if (typeof value === 'object' && value !== null)
    return `\n${Object.entries(value)
      .map(([k, v]) => `${indent}${k}:${yamlOf(v, `${indent}  `)}`)
      .join('')}`;
  const text = String(value);
  if (text.includes('\n'))
    return ` |\n${text
      .trimEnd()
      .split('\n')
      .map((line) => (line === '' ? '' : indent + line))
      .join('\n')}\n`;
  const isPlain =
    /^[a-z][a-z0-9@. /+=-]*$/i.test(text) && !/^(y|n|yes|no|on|off|true|false|null)$/i.test(text) && !/: |#/.test(text);
  return ` ${isPlain ? text : JSON.stringify(text)}\n`;
}

// A configuration error lists its problems on lines of their own.
function indented(message: string): string {
  return message
    .split('\n')
    .map((line) => `    ${plain(line)}\n`)
    .join('');
}

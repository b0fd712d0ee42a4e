import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { dirname, join, relative } from 'node:path';
import { fileURLToPath } from 'node:url';
import { buildBundle, readBundle } from '../bundle/index.ts';
import type { ProcessSettings } from '../config/index.ts';
import { redactUrl, signWithGitKey } from '../git/index.ts';
import { CountersignError, messageOf, type WaiverDocument, waiverSchema } from '../model/index.ts';
import { chooseEnvironment, openCheckout, openConfiguration } from '../open/index.ts';
import { EXIT, type Io, paint, plain } from '../terminal/index.ts';
import { signedBytes, waiverStatement } from '../trust/index.ts';
import { opaProgram, openPolicies } from './check-files.ts';
import type {
  PolicyBuildOptions,
  PolicyListOptions,
  PolicySignOptions,
  PolicyWaiveOptions,
} from './policy-commands.ts';

/** Implements `countersign policy build`: compiles Rego, templates and constraints into one bundle. */
export async function policyBuild(
  roots: readonly string[],
  options: PolicyBuildOptions,
  settings: ProcessSettings,
  io: Io,
): Promise<number> {
  const built = await buildBundle({
    opa: await opaProgram(settings, io),
    roots,
    data: options.data ?? [],
    v0: options.v0,
  });
  try {
    mkdirSync(dirname(options.bundle), { recursive: true });
    writeFileSync(options.bundle, built.archive);
  } catch (cause) {
    throw new CountersignError('usage', `\`${options.bundle}\` cannot be written: ${messageOf(cause)}`, { cause });
  }
  const { entries, rules, templates, constraints } = built.manifest;
  if (options.output === 'json') {
    const written = {
      bundle: options.bundle,
      digest: built.digest,
      opa: built.manifest.opa,
      entrypoints: entries.map((e) => e.entrypoint),
      rules: rules.length,
      templates: templates.length,
      constraints: constraints.length,
    };
    io.out(`${JSON.stringify(written, null, 2)}\n`);
  } else {
    io.out(`${paint(io, 'green', 'wrote')} ${options.bundle}  ${(built.archive.length / 1024).toFixed(0)} KiB\n`);
    io.out(
      `  digest     ${built.digest}\n  rules      ${entries.filter((e) => e.action !== 'exception').length} ` +
        `entrypoints, ${rules.length} with metadata\n`,
    );
    if (templates.length > 0) io.out(`  templates  ${templates.length}, with ${constraints.length} constraints\n`);
  }
  return EXIT.yes;
}

/** Implements `countersign policy list`: lists every rule with its purpose. */
export async function policyList(options: PolicyListOptions, settings: ProcessSettings, io: Io): Promise<number> {
  const bundles = await openPolicies(options.policy ?? [], [], settings, io);
  if (options.output === 'json') {
    io.out(
      `${JSON.stringify(
        bundles.map((b) => ({ name: b.name, digest: b.digest, ...b.manifest })),
        null,
        2,
      )}\n`,
    );
    return EXIT.yes;
  }
  for (const { name, digest, manifest } of bundles) {
    io.out(`${paint(io, 'bold', plain(name))}  ${digest.slice(0, 16)}\n`);
    for (const rule of manifest.rules)
      io.out(
        `  ${plain(rule.id).padEnd(22)} ${(rule.severity ?? '').padEnd(8)} ` +
          `${(rule.controls ?? []).join(',').padEnd(12)} ${plain(rule.title ?? '')}\n`,
      );
    const known = new Set(manifest.rules.map((r) => r.id));
    for (const e of manifest.entries.filter(
      (one) =>
        one.convention === 'conftest' && !known.has(`${one.namespace}/${one.name}`) && !known.has(one.entrypoint),
    ))
      io.out(`  ${plain(`${e.namespace}/${e.name}`).padEnd(22)} ${e.action}\n`);
    for (const c of manifest.constraints) io.out(`  ${plain(`${c.kind}/${c.name}`).padEnd(22)} ${c.action}\n`);
  }
  return EXIT.yes;
}

/**
 * Implements `countersign policy capabilities`: prints the builtins rules may use, for `opa build --capabilities` and
 * editors.
 */
export function policyCapabilities(io: Io): number {
  io.out(readFileSync(fileURLToPath(new URL('../../policies/capabilities.json', import.meta.url)), 'utf8'));
  return EXIT.yes;
}

/** Implements `countersign policy sign`: writes a signature beside a bundle, with the key commits are signed with. */
export async function policySign(
  file: string,
  options: PolicySignOptions,
  settings: ProcessSettings,
  io: Io,
): Promise<number> {
  const bundle = await readBundle(bytesOf(file), file);
  const { user, repository } = await openCheckout(options.repo, settings);
  try {
    const { armored } = await signWithGitKey(user, signedBytes('bundle', { sha256: bundle.digest }), options.key);
    writeFileSync(`${file}.sig`, armored);
    io.out(
      options.output === 'json'
        ? `${JSON.stringify({ signature: `${file}.sig`, digest: bundle.digest })}\n`
        : `${paint(io, 'green', 'wrote')} ${file}.sig, for the bundle ${bundle.digest.slice(0, 16)}…\n`,
    );
    return EXIT.yes;
  } finally {
    repository.close();
  }
}

function bytesOf(file: string): Buffer {
  try {
    return readFileSync(file);
  } catch (cause) {
    throw new CountersignError('usage', `the bundle \`${file}\` cannot be read: ${messageOf(cause)}`, {
      cause,
      hint: 'name a bundle as `countersign policy build` writes it',
    });
  }
}

/**
 * Implements `countersign policy waive`: writes a signed file that lets one subject break one rule until a date. It
 * counts once it is merged.
 */
export async function policyWaive(
  rule: string,
  options: PolicyWaiveOptions,
  settings: ProcessSettings,
  io: Io,
): Promise<number> {
  const environment = chooseEnvironment(openConfiguration({ config: options.config }), options.environment);
  const name =
    options.name ??
    `${rule}-${options.object ?? options.namespace ?? options.kind ?? 'waiver'}`
      .toLowerCase()
      .replace(/[^a-z0-9]+/g, '-')
      .replace(/^-|-$/g, '');
  const subject = Object.fromEntries(
    Object.entries({
      kind: options.kind,
      namespace: options.namespace,
      name: options.object,
      file: options.file,
    }).filter(([, v]) => v !== undefined),
  );
  const draft = {
    apiVersion: 'countersign.dev/v1alpha1',
    kind: 'Waiver',
    metadata: { name },
    spec: {
      rule,
      environments: [environment.metadata.name],
      subjects: [subject],
      reason: options.reason,
      ticket: options.ticket,
      issuedAt: new Date().toISOString().replace(/\.\d+Z$/, 'Z'),
      until: options.until,
    },
  };
  const parsed = waiverSchema.safeParse(draft);
  if (!parsed.success)
    throw new CountersignError(
      'usage',
      `this is not a valid waiver: ${parsed.error.issues.map((i) => `${i.path.join('.')}: ${i.message}`).join('; ')}`,
      { hint: 'name a subject with --kind, --namespace, --object or --file, and the date with --until 2026-12-31' },
    );
  if (Date.parse(`${options.until}T00:00:00Z`) <= Date.now())
    throw new CountersignError('usage', `the date \`${options.until}\` is not in the future`, {
      hint: 'a waiver no longer counts on its --until date',
    });
  const { user, repository } = await openCheckout(options.repo, settings);
  try {
    const { armored } = await signWithGitKey(
      user,
      signedBytes('waiver', waiverStatement(parsed.data, environment.spec.source.url)),
      options.key,
    );
    const path = join(environment.spec.policies.waivers, `${name}.yaml`);
    const file = join(options.repo, path);
    if (existsSync(file))
      throw new CountersignError('usage', `\`${path}\` already exists`, {
        hint: 'remove it, or choose a different --name',
      });
    mkdirSync(dirname(file), { recursive: true });
    writeFileSync(file, waiverText(parsed.data, armored));
    if (options.output === 'json') io.out(`${JSON.stringify({ file: path, name, rule, until: options.until })}\n`);
    else
      io.out(
        `${paint(io, 'green', 'wrote')} ${relative('.', file)}\n  it waives \`${plain(rule)}\` in ` +
          `\`${environment.metadata.name}\` of ${redactUrl(environment.spec.source.url)} until ` +
          `${options.until}\n  commit it like any other change: it counts once that is approved and merged\n`,
      );
    return EXIT.yes;
  } finally {
    repository.close();
  }
}

// Written for reviewers: JSON strings are valid YAML, and quote everything that needs it.
function waiverText(document: WaiverDocument, signature: string): string {
  const { rule, environments, subjects, reason, ticket, issuedAt, until } = document.spec;
  const text = (value: string) => JSON.stringify(value);
  return `apiVersion: countersign.dev/v1alpha1
kind: Waiver
metadata:
  name: ${text(document.metadata.name)}
spec:
  rule: ${text(rule)}
  environments: [${environments.map(text).join(', ')}]
  subjects:
${subjects
  .map(
    (s) =>
      `    - {${Object.entries(s)
        .map(([k, v]) => `${k}: ${text(v ?? '')}`)
        .join(', ')}}`,
  )
  .join('\n')}
  reason: ${text(reason)}
  ticket: ${text(ticket)}
  issuedAt: ${text(issuedAt)}
  until: ${text(until)}
signature: |
${signature.trim().replace(/^/gm, '  ')}
`;
}

import { z } from 'zod';
import { CountersignError, type RenderedObject, refKey, refText, type VerifiedChange, type Violation } from '../model/index.ts';
import type { Entrypoint, PolicyBundle } from './load-bundle.ts';

/** What every rule can read beside its subject. */
export type PolicyScope = { readonly environment: string; readonly parameters: Readonly<Record<string, unknown>> };

/** The change as rules see it. */
export type ChangeInput = {
  readonly from: string;
  readonly to: string;
  readonly ref: string;
  readonly commits: readonly {
    readonly id: string;
    readonly subject: string;
    readonly author: string;
    readonly committer: string;
    readonly signer: string;
  }[];
  readonly approvers: readonly string[];
  /** `class` is A+, A, B or C: how strong the evidence is (docs/approval-format.md). */
  readonly approvals: readonly { readonly principal: string; readonly class: string; readonly match: string }[];
  readonly rollback: boolean;
  readonly paths: readonly string[];
  /** Objects that are new or different. */
  readonly objects: readonly {
    readonly apiVersion: string;
    readonly kind: string;
    readonly namespace: string;
    readonly name: string;
    readonly file: string;
  }[];
};

type Found = { readonly violations: readonly Violation[]; readonly warnings: readonly Violation[] };

// What one rule may answer with. Text alone is taken too, as Conftest's users write it.
const findingSchema = z.union([
  z.string().transform((message) => ({
    rule: 'unnamed',
    message,
    path: [] as (string | number)[],
    hint: undefined as string | undefined,
    severity: undefined as string | undefined,
  })),
  z.object({
    rule: z.string().default('unnamed'),
    message: z.string(),
    path: z.array(z.union([z.string(), z.number()])).default([]),
    hint: z.string().optional(),
    severity: z.string().optional(),
  }),
]);

/** Runs the object rules on every object. Findings are sorted, so that the same input gives the same bytes. */
export function evaluateObjects(bundle: PolicyBundle, objects: readonly RenderedObject[], scope: PolicyScope): Found {
  const run = (entrypoint: Entrypoint) =>
    objects.flatMap((rendered) =>
      evaluate(bundle, entrypoint, { ...scope, object: rendered.object, file: rendered.source.file }).map(
        ({ path, ...finding }): Violation => ({
          code: 'policy',
          ...withoutUndefined(finding),
          message: `${refText(rendered.ref)}: ${finding.message}`,
          object: rendered.ref,
          source: { file: rendered.source.file, line: rendered.lineOf(path) },
        }),
      ),
    );
  return { violations: run('countersign/object/deny'), warnings: run('countersign/object/warn') };
}

/** Runs the change rules once. */
export function evaluateChange(bundle: PolicyBundle, change: ChangeInput, scope: PolicyScope): Found {
  const run = (entrypoint: Entrypoint) =>
    evaluate(bundle, entrypoint, { ...scope, change }).map(
      ({ path: _, ...finding }): Violation => ({
        code: 'policy',
        commit: change.to,
        ...withoutUndefined(finding),
        message: finding.message,
      }),
    );
  return { violations: run('countersign/change/deny'), warnings: run('countersign/change/warn') };
}

/** The input for change rules from what was verified. */
export function changeInput(
  change: VerifiedChange,
  signers: ReadonlyMap<string, string>,
  paths: readonly string[],
  objects: readonly RenderedObject[],
): ChangeInput {
  const changed = new Set(paths);
  const person = (a: { name: string; email: string }) => `${a.name} <${a.email}>`;
  return {
    from: change.from,
    to: change.to,
    ref: change.ref,
    commits: change.commits.map((c) => ({
      id: c.id,
      subject: c.subject,
      author: person(c.author),
      committer: person(c.committer),
      signer: signers.get(c.id) ?? '',
    })),
    approvers: [...new Set(change.approvals.map((a) => a.principal))].sort(),
    approvals: change.approvals.map((a) => ({ principal: a.principal, class: a.class, match: a.match })),
    rollback: change.rollback,
    paths,
    objects: objects
      .filter((o) => changed.has(o.source.file))
      .map((o) => ({ ...o.ref, file: o.source.file }))
      .sort((a, b) => (refKey(a) < refKey(b) ? -1 : 1)),
  };
}

function evaluate(bundle: PolicyBundle, entrypoint: Entrypoint, input: object) {
  if (!bundle.entrypoints.includes(entrypoint)) return [];
  const findings = z.array(findingSchema).safeParse(bundle.evaluate(entrypoint, input));
  if (!findings.success)
    throw new CountersignError('policy-failed', `the rules at \`${entrypoint}\` answered with something that is no set of findings`, {
      hint: 'a finding is text, or an object with `rule`, `message`, `path`, `hint` and `severity`',
    });
  return findings.data.sort((a, b) => (JSON.stringify(a) < JSON.stringify(b) ? -1 : 1));
}

function withoutUndefined(finding: { rule: string; message: string; hint?: string | undefined; severity?: string | undefined }): {
  rule: string;
  message: string;
  hint?: string;
  severity?: string;
} {
  return {
    rule: finding.rule,
    message: finding.message,
    ...(finding.hint === undefined ? {} : { hint: finding.hint }),
    ...(finding.severity === undefined ? {} : { severity: finding.severity }),
  };
}

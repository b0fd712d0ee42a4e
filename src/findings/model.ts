import { createHash } from 'node:crypto';
import type { RuleInfo } from '../bundle/index.ts';
import { refText, type Violation } from '../model/index.ts';

/** Result of a check, for output in any format. */
export type Findings = {
  readonly outcome: 'allowed' | 'denied';
  readonly findings: readonly Finding[];
  /** Violations of the base that the head no longer has. */
  readonly fixed: readonly Violation[];
  readonly objects: number;
  readonly rules: ReadonlyMap<string, RuleInfo>;
};

/** `error` denies, `warning` does not, `note` is covered by a waiver or an exception. */
export type Finding = Violation & { readonly level: 'error' | 'warning' | 'note'; readonly state?: 'new' | 'existing' };

export const FORMS = ['text', 'json', 'sarif', 'junit', 'github', 'gitlab', 'azuredevops', 'tap', 'markdown'] as const;

export type Form = (typeof FORMS)[number];

export const ruleOf = (f: Violation) => f.rule ?? f.code;

/** Returns a text that stays the same when lines move, to tell new findings from old ones. */
export function fingerprint(f: Violation): string {
  const object = f.object === undefined ? '' : refText(f.object);
  return createHash('sha256')
    .update(JSON.stringify([ruleOf(f), object, f.message, f.source?.file ?? '']))
    .digest('hex')
    .slice(0, 32);
}

export function place(f: Violation): string {
  return f.source === undefined
    ? ''
    : `${f.source.file}:${f.source.line}${f.source.column === undefined ? '' : `:${f.source.column}`}`;
}

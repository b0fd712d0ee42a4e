import { createHash } from 'node:crypto';
import type { RuleInfo } from '../bundle/index.ts';
import { refText, type Violation } from '../model/index.ts';

/** What a check found, in every form it may be printed in. */
export type Findings = {
  readonly outcome: 'allowed' | 'denied';
  readonly findings: readonly Finding[];
  /** What the base had and the head has not. */
  readonly fixed: readonly Violation[];
  readonly objects: number;
  readonly rules: ReadonlyMap<string, RuleInfo>;
};

/** `error` denies, `warning` does not, `note` is let pass by a waiver or an exception. */
export type Finding = Violation & { readonly level: 'error' | 'warning' | 'note'; readonly state?: 'new' | 'existing' };

export const FORMS = ['text', 'json', 'sarif', 'junit', 'github', 'gitlab', 'azuredevops', 'tap', 'markdown'] as const;

export type Form = (typeof FORMS)[number];

export const ruleOf = (f: Violation) => f.rule ?? f.code;

/** Text that stays the same when lines move: for telling new findings from old ones. */
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

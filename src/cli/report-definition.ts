import { frameworkNamed } from '../config/index.ts';
import { CountersignError } from '../model/index.ts';
import type { ReportDefinition } from '../report/index.ts';

export type DefinitionOptions = {
  environment?: string[];
  entity?: string;
  classification: string;
  framework?: string[];
  seed?: string;
  sample: string;
  failureHours: string;
  reviewHours: string;
};

/** Parses the period. Throws `usage` if it is empty. */
export function periodOf(options: { readonly from?: string; readonly to?: string }): {
  readonly from: string;
  readonly to: string;
} {
  const from = instant(options.from, '1970-01-01T00:00:00.000Z');
  const to = instant(options.to, new Date(Date.now() + 1).toISOString());
  if (from >= to)
    throw new CountersignError('usage', `the period from ${from} to ${to} is empty`, {
      hint: '--to must be later than --from',
    });
  return { from, to };
}

/** Returns the definition, with defaults filled in. Throws `usage`. */
export function defined(
  options: DefinitionOptions,
): Omit<ReportDefinition, 'entity'> & { readonly entity: string | undefined } {
  const whole = (text: string, flag: string) => {
    const value = Number(text);
    if (!Number.isSafeInteger(value) || value < 1 || value > 100_000)
      throw new CountersignError('usage', `\`${text}\` is not a number for ${flag}`, {
        hint: 'give a whole number from 1 on',
      });
    return value;
  };
  return {
    entity: options.entity,
    classification: options.classification,
    frameworks: (options.framework ?? ['soc2']).map(frameworkNamed),
    environments: options.environment ?? [],
    sample: options.seed === undefined ? undefined : { seed: options.seed, size: whole(options.sample, '--sample') },
    failureHours: whole(options.failureHours, '--failure-hours'),
    reviewHours: whole(options.reviewHours, '--review-hours'),
  };
}

/** Parses a day or time and returns it in ISO 8601. Throws `usage`. */
export function instant(text: string | undefined, otherwise: string): string {
  if (text === undefined) return otherwise;
  const time = Date.parse(/^\d{4}-\d{2}-\d{2}$/.test(text) ? `${text}T00:00:00Z` : text);
  if (Number.isNaN(time))
    throw new CountersignError('usage', `\`${text}\` is not a time`, {
      hint: 'give for example 2026-01-31 or 2026-01-31T12:00:00Z',
    });
  return new Date(time).toISOString();
}

import { globMatches, type Violation } from '../model/index.ts';

/** A signed, dated permission to break one rule for some objects, verified by `trust`. */
export type Waiver = {
  readonly name: string;
  /** Full name of a rule. */
  readonly rule: string;
  readonly environments: readonly string[];
  readonly subjects: readonly {
    readonly kind?: string | undefined;
    readonly namespace?: string | undefined;
    readonly name?: string | undefined;
    readonly file?: string | undefined;
  }[];
  readonly reason: string;
  readonly ticket: string;
  /** The signer. */
  readonly approver: string;
  /** The first moment at which it no longer counts; milliseconds since 1970. */
  readonly until: number;
  readonly place: string;
};

const SOON = 14 * 86_400_000; // two weeks: enough time to fix the problem or to ask again

/**
 * Separates violations that a waiver covers at this moment from the others. Warns of waivers that cover nothing, expire
 * soon, or have expired while the violation remains.
 */
export function applyWaivers(
  violations: readonly Violation[],
  waivers: readonly Waiver[],
  environment: string,
  now: number,
): {
  readonly standing: readonly Violation[];
  readonly waived: readonly Violation[];
  readonly warnings: readonly Violation[];
} {
  const here = waivers.filter((w) => w.environments.some((g) => globMatches(g, environment)));
  const used = new Map<Waiver, number>();
  const standing: Violation[] = [];
  const waived: Violation[] = [];
  for (const violation of violations) {
    const covering = violation.code === 'policy' ? here.filter((w) => covers(w, violation)) : [];
    for (const w of covering) used.set(w, (used.get(w) ?? 0) + 1);
    const inForce = covering.find((w) => now < w.until);
    if (inForce !== undefined)
      waived.push({
        ...violation,
        waived: {
          waiver: inForce.name,
          approver: inForce.approver,
          ticket: inForce.ticket,
          reason: inForce.reason,
          until: new Date(inForce.until).toISOString().slice(0, 10),
        },
      });
    else if (covering[0] !== undefined)
      standing.push({
        ...violation,
        hint:
          `the waiver \`${covering[0].name}\` expired on ${day(covering[0])}; ` +
          `${violation.hint ?? 'fix it, or have a new one signed'}`,
      });
    else standing.push(violation);
  }
  const warnings = here.flatMap((w): Violation[] => {
    const at = { source: placeOf(w) };
    if (!used.has(w))
      return [{ code: 'waiver-unused', message: `the waiver \`${w.name}\` covers nothing`, hint: 'remove it', ...at }];
    if (now < w.until && w.until - now < SOON)
      return [
        {
          code: 'waiver-ends',
          message: `the waiver \`${w.name}\` for \`${w.rule}\` expires on ${day(w)}`,
          hint: `fix the violation it covers (${w.ticket}), or have a new one signed`,
          ...at,
        },
      ];
    return [];
  });
  return { standing, waived, warnings };
}

function covers(waiver: Waiver, violation: Violation): boolean {
  if (waiver.rule !== violation.rule) return false;
  return waiver.subjects.some(
    (s) =>
      (s.kind === undefined || s.kind === violation.object?.kind) &&
      (s.namespace === undefined || s.namespace === violation.object?.namespace) &&
      (s.name === undefined || s.name === violation.object?.name) &&
      (s.file === undefined || s.file === violation.source?.file),
  );
}

function day(waiver: Waiver): string {
  return new Date(waiver.until).toISOString().slice(0, 10);
}

function placeOf(waiver: Waiver): { file: string; line: number } {
  const match = /^(.*):(\d+)$/.exec(waiver.place);
  return { file: match?.[1] ?? waiver.place, line: Number(match?.[2] ?? 1) };
}
